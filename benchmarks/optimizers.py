"""Costs of the optimizer steps, as ratios of process CPU time to PyTorch's, in one run.

With several threads, the ratios are of wall-clock time, because a thread that waits for the others
also uses CPU time; no other program may run then.

The optimizer step alone (transform and update) is compared with ``AdamW(fused=True)``, which moves
28 bytes per parameter in single precision: it reads weight, gradient and both moments, and writes
all but the gradient. On a CPU, memory does not determine the cost of the power:

- A separate pass for the transform adds 8 bytes, which gives 36.
- The transform computes a logarithm and an exponential per element, which dominate the eager figure
  (``aten::pow`` is even slower). With AVX-512, NumPy computes the logarithm.
- ``compile=True`` transforms and updates in one C++ kernel, which reads nothing twice.

The last row of each table is the memory floor: the bytes that AdamW moves, without
any computation.

usage: python benchmarks/optimizers.py [--pairs 32] [--steps 5] [--threads 1] [--only PATTERN]

The other libraries are optional: pip install --no-deps pytorch_optimizer heavyball
"""

import argparse
import logging
import platform
import re
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from paired import Ratio, median_ratio, paired_ratio
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import AdamW, Optimizer

from lightning_plugins.litmodels import CausalLM
from lightning_plugins.optimizers import (
    AdamMini,
    AdamWPower,
    BlockwiseAdamW,
    BlockwiseLion,
    Lion,
)

P = 1.2
HIDDEN, FEED_FORWARD, LAYERS, VOCABULARY, HEADS = 256, 688, 8, 4096, 8
CONTEXT, BATCH = 128, 16
clock = time.process_time
Named = list[tuple[str, nn.Parameter]]
MakeOptimizer = Callable[[Named], Optimizer]


def llama(dtype: torch.dtype = torch.float32, hidden: int = HIDDEN) -> Named:
    """Return parameters with the shapes and names of a LLaMA."""
    shapes = {"model.embed_tokens": (VOCABULARY, hidden), "lm_head": (VOCABULARY, hidden)}
    for layer in (f"model.layers.{index}" for index in range(LAYERS)):
        shapes |= {f"{layer}.self_attn.{name}_proj": (hidden, hidden) for name in "qkvo"}
        shapes |= {f"{layer}.mlp.{name}_proj": (FEED_FORWARD, hidden) for name in ("gate", "up")}
        shapes |= {f"{layer}.mlp.down_proj": (hidden, FEED_FORWARD)}
        shapes |= {f"{layer}.{name}_layernorm": (hidden,) for name in ("input", "post_attention")}
    return _parameters({**shapes, "model.norm": (hidden,)}, dtype)


def gpt2() -> Named:
    """Return as many parameters of Hugging Face's GPT-2, with fused queries, keys and values."""
    shapes = {"transformer.wte": (VOCABULARY, HIDDEN), "transformer.wpe": (1024, HIDDEN)}
    for layer in (f"transformer.h.{index}" for index in range(LAYERS)):
        shapes |= {
            f"{layer}.attn.c_attn": (HIDDEN, 3 * HIDDEN),
            f"{layer}.attn.c_proj": (HIDDEN, HIDDEN),
            f"{layer}.mlp.c_fc": (HIDDEN, 4 * HIDDEN),
            f"{layer}.mlp.c_proj": (4 * HIDDEN, HIDDEN),
            f"{layer}.ln_1": (HIDDEN,),
            f"{layer}.ln_2": (HIDDEN,),
        }
    return _parameters(shapes, torch.float32)


def _parameters(shapes: dict[str, tuple[int, ...]], dtype: torch.dtype) -> Named:
    generator = torch.Generator().manual_seed(0)
    return [
        (f"{name}.weight", nn.Parameter(0.02 * torch.randn(shape, generator=generator).to(dtype)))
        for name, shape in shapes.items()
    ]


class Paper:
    """The authors' transform, one expression per parameter, followed by AdamW."""

    def __init__(self, named: Named) -> None:
        self.parameters = [parameter for _, parameter in named]
        self.optimizer = AdamW(self.parameters, fused=True)

    def step(self) -> None:
        authors_line(self.parameters)
        self.optimizer.step()


def in_pytorch_optimizer(named: Named) -> Any:
    """A wrapper like the library's ``OrthoGrad``, with the power as the projection."""
    from pytorch_optimizer import OrthoGrad

    class PowerGrad(OrthoGrad):
        def apply_orthogonal_gradients(self, params: Any) -> None:
            for p in params:
                p.grad.copy_(p.grad.sign() * p.grad.abs().pow(P))

    return PowerGrad(AdamW([parameter for _, parameter in named], fused=True))


def in_heavyball(named: Named, compile_step: bool = False) -> Any:
    """A stateless transform in the library's chain, before its own compiled Adam."""
    import heavyball
    from heavyball import chainable

    @chainable.no_state
    def sign_power(group: dict, update: list[Tensor], grad: Any, param: Any) -> list[Tensor]:
        return [u.sign() * u.abs().pow(P) for u in update]

    class Powered(chainable.BaseOpt):
        def __init__(self, params: Any) -> None:
            defaults = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-2}
            functions = (sign_power, chainable.update_by_adam)
            super().__init__(params, defaults, fns=functions, compile_step=compile_step)

    heavyball.utils.compile_mode = "default"  # its default, max-autotune, is for GPUs
    return Powered([parameter for _, parameter in named])


def steps_of(make: Callable[[Named], Any], named: Named, steps: int) -> Callable[[], float]:
    """Return a block that times ``steps`` calls of ``step``; gradients are restored before each."""
    generator = torch.Generator().manual_seed(1)
    originals = [1e-3 * torch.randn(p.shape, generator=generator).to(p.dtype) for _, p in named]
    optimizer = make(named)

    def block() -> float:
        seconds = 0.0
        for _ in range(steps):
            for (_, parameter), gradient in zip(named, originals, strict=True):
                if parameter.grad is None:  # heavyball consumes them
                    parameter.grad = torch.empty_like(gradient)
                parameter.grad.copy_(gradient)
            started = clock()
            optimizer.step()
            seconds += clock() - started
        return seconds / steps

    return block


class MemoryFloor:
    """Moves as many bytes as AdamW, in place, in a buffer that does not fit into the cache."""

    def __init__(self, named: Named) -> None:
        moved = 7 * sum(p.numel() * p.element_size() for _, p in named)
        self.buffer = torch.zeros(moved // 2 // 4)  # each element is read and written

    def step(self) -> None:
        self.buffer.neg_()


def call_overhead(make: Callable[[Named], Any], pairs: int) -> str:
    """Return the microseconds of a step for one parameter of one element."""
    block = steps_of(make, _parameters({"one": (1,)}, torch.float32), 100)
    return f"{1e6 * sorted(block() for _ in range(pairs))[pairs // 2]:.0f} us a call"


def training_step(base: MakeOptimizer, arm: MakeOptimizer, pairs: int, **shape: int) -> Ratio:
    """Return the ratio of a training step of 2048 tokens with the optimizers ``arm`` and ``base``.

    A pair is one forward and backward pass with one step of each, on the same gradients and in
    alternating order, so that the time of the passes, which is common, does not add its variation.

    Args:
        base: Builds the optimizer to compare with.
        arm: Builds the other optimizer, of the same parameters.
        pairs: The number of training steps.
        **shape: Differences to the model of the recipe ``language_model/tiny``.
    """
    torch.manual_seed(0)
    tiny = {"hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 2}
    config = {**tiny, "num_attention_heads": 2, "tie_word_embeddings": True, **shape}
    lit = CausalLM(config=config, context_length=CONTEXT)
    lit.configure_model()
    network = lit.network
    assert network is not None
    network.train()
    windows = torch.randint(256, (BATCH, CONTEXT + 1))
    parameters = list(network.parameters())
    optimizers = [make(list(network.named_parameters())) for make in (base, arm)]
    ratios = []
    for pair in range(pairs + 2):
        started = clock()
        network.zero_grad()
        logits = network(windows[:, :-1]).logits
        cross_entropy(logits.float().flatten(0, 1), windows[:, 1:].flatten()).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        common = clock() - started
        gradients = [parameter.grad.clone() for parameter in parameters]
        seconds = [0.0, 0.0]
        for index in (0, 1) if pair % 2 else (1, 0):
            torch._foreach_copy_([parameter.grad for parameter in parameters], gradients)
            started = clock()
            optimizers[index].step()
            seconds[index] = common + clock() - started
        ratios.append(seconds[1] / seconds[0])
    return median_ratio(ratios[2:])  # the first steps allocate


def authors_line(parameters: list[nn.Parameter]) -> None:
    """The transform of the authors' code."""
    for p in parameters:
        assert p.grad is not None
        p.grad = torch.sign(p.grad) * torch.pow(torch.abs(p.grad) + 1e-8, P)


ARMS: dict[str, Callable[[Named], Any]] = {
    "AdamWPower": partial(AdamWPower, p=P, fused=True),
    "AdamWPower(compile=True)": partial(AdamWPower, p=P, fused=True, compile=True),
    "AdamWPower(p=1, compile=True)": partial(AdamWPower, p=1, fused=True, compile=True),
    "the authors' line": Paper,
    "pytorch_optimizer": in_pytorch_optimizer,
    "heavyball": in_heavyball,
    "heavyball(compile_step=True)": partial(in_heavyball, compile_step=True),
    "torch AdamW(foreach=True)": partial(AdamW, foreach=True),
    "torch AdamW(foreach=False)": partial(AdamW, foreach=False),
    "memory floor": MemoryFloor,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--steps", type=int, default=5, help="steps a block")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="measure rows whose table and name match")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    global clock
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    warnings.simplefilter("ignore")
    logging.getLogger("lightning_plugins").setLevel(logging.ERROR)
    steps, pairs = arguments.steps, arguments.pairs
    parameters = sum(p.numel() for _, p in llama())
    print(
        f"{parameters / 1e6:.2f} M parameters in the shapes of a LLaMA, gradients of size 1e-3, "
        f"blocks of {steps} steps, {arguments.threads} thread(s), torch {torch.__version__}, "
        f"{platform.machine()}\nratios of {clock.__name__}, median [95 % bounds]"
    )

    def show(what: str, ratio: Ratio, absolute: str = "") -> None:
        print(f"{what:<62} {ratio} {absolute}", flush=True)

    def is_wanted(table: str, what: str) -> bool:
        return re.search(arguments.only, f"{table}: {what}") is not None

    def compare(
        table: str, what: str, base: Any, arm: Any, make_named: Callable[[], Named]
    ) -> None:
        if not is_wanted(table, what):
            return
        try:
            blocks = steps_of(base, make_named(), steps), steps_of(arm, make_named(), steps)
        except ImportError as error:
            print(f"{what:<62} not installed: pip install --no-deps {error.name}")
            return
        ratio = paired_ratio(*blocks, pairs)
        nanoseconds = 1e9 * sorted(blocks[1]() for _ in range(5))[2] / parameters
        show(what, ratio, f"{nanoseconds:.2f} ns/element, {call_overhead(arm, 5)}")

    fused = partial(AdamW, fused=True)
    for dtype in (torch.float32, torch.bfloat16):
        print(f"\nstep of the optimizer, transform and update / AdamW(fused=True), {dtype}")
        for name, arm in ARMS.items():
            compare(f"step {dtype}", name, fused, arm, partial(llama, dtype))
    print("\nblockwise step / the same optimizer without blocks")
    blockwise = partial(BlockwiseAdamW, fused=True)
    compare("blockwise", "BlockwiseAdamW, LLaMA", fused, blockwise, llama)
    compare("blockwise", "BlockwiseAdamW, GPT-2 with fused projections", fused, blockwise, gpt2)
    compare("blockwise", "BlockwiseLion, LLaMA", Lion, BlockwiseLion, llama)
    adam_mini = partial(AdamMini, head_dim=HIDDEN // HEADS)
    compare("blockwise", "AdamMini / AdamW(foreach=False), LLaMA", AdamW, adam_mini, llama)

    arms = {
        "AdamWPower": partial(AdamWPower, p=P, lr=1e-3, fused=True),
        "AdamWPower(compile=True)": partial(AdamWPower, p=P, lr=1e-3, compile=True),
        "BlockwiseAdamW": partial(BlockwiseAdamW, lr=1e-4, fused=True),
    }
    ten_million = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 6}
    for what, shape in (("language_model/tiny, 0.12 M", {}), ("a LLaMA of 10 M", ten_million)):
        print(f"\nwhole training step of {what} parameters, 2048 tokens / AdamW(fused=True)")
        for name, make in arms.items():
            if is_wanted(what, name):
                base = partial(AdamW, lr=1e-3, fused=True)
                show(name, training_step(base, make, pairs, **shape))


if __name__ == "__main__":
    main()
