"""Dispatch back-ends of MoELayer, the usual loop, and transformers' Qwen2-MoE, in one run.

The benchmark measures forward and backward of one layer in single precision, as ratios of process
CPU time in alternating pairs. The usual loop selects each expert's tokens with ``torch.where``,
indexes the stacked weights and adds with ``index_add_``; the back-end ``loop`` sorts the tokens
first and unbinds the weights once. Loop and block use the same weights, and their outputs are
compared first. The lower bound is the two batched matrix products on tokens that are already in
equal groups: if the last ratio is near 1, no dispatch method can be much faster.

It starts with the time of the back-end ``auto`` relative to the fastest of the three.

usage: python benchmarks/moe.py [--pairs 16] [--threads 1] [--only-auto]
"""

import argparse
import platform
import time
from collections.abc import Callable

import torch
import transformers
from paired import paired_ratio
from torch import Tensor, nn
from transformers import Qwen2MoeConfig
from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeSparseMoeBlock

from lightning_plugins.nn.moe import MoELayer

TOKENS, FEATURES = 4096, 128
SHAPES = ((8, 256, 1), (32, 256, 1), (32, 256, 2), (64, 64, 1))
"""(experts, hidden features, experts per token)"""


def layer(experts: int, hidden: int, top_k: int, backend: str, **changes: object) -> MoELayer:
    torch.manual_seed(0)
    settings = {"num_experts": experts, "hidden_features": hidden, "top_k": top_k, **changes}
    return MoELayer(FEATURES, FEATURES, backend=backend, **settings)


def inputs() -> Tensor:
    return torch.randn(TOKENS, FEATURES, generator=torch.Generator().manual_seed(1))


AUTO_SIZES = (
    *((64, 8, 4, 16, 1), (256, 8, 4, 16, 1), (2048, 8, 4, 10, 1), (2048, 8, 16, 16, 1)),
    *((256, 16, 8, 32, 2), (1024, 16, 4, 16, 2), (64, 32, 8, 64, 2), (1024, 32, 8, 64, 2)),
    *((256, 64, 8, 64, 2), (256, 64, 16, 32, 2), (2048, 64, 8, 64, 2), (2048, 64, 10, 64, 1)),
    *((4096, 128, 8, 256, 1), (4096, 128, 32, 256, 2), (4096, 128, 64, 64, 1)),
)
"""(tokens, features, experts, hidden features, experts per token)"""


def auto_against_the_fastest(
    num_tokens: int, features: int, experts: int, hidden: int, top_k: int
) -> float:
    """Return the time of ``auto`` relative to the fastest back-end, minima of seven blocks."""
    tokens = torch.randn(num_tokens, features, generator=torch.Generator().manual_seed(1))
    gradient = torch.ones(num_tokens, features)
    seconds: dict[str, list[float]] = {}
    repeats = max(1, min(20, 20_000_000 // (num_tokens * features * hidden * top_k)))
    layers = {}
    for backend in ("auto", "dense", "loop", "grouped_mm"):
        torch.manual_seed(0)
        layers[backend] = MoELayer(
            features, features, experts, hidden, top_k=top_k, backend=backend
        )
    for _ in range(7):
        for backend, module in layers.items():
            found = seconds.setdefault(backend, [])
            if found and min(found) > 3 * min(map(min, seconds.values())):
                continue  # far from the fastest
            started = time.process_time()
            for _ in range(repeats):
                module(tokens).backward(gradient)
            found.append(time.process_time() - started)
    auto = min(seconds.pop("auto"))
    return auto / min(map(min, seconds.values()))


class UsualLoop(nn.Module):
    """The usual implementation of the layer."""

    def __init__(self, own: MoELayer) -> None:
        super().__init__()
        self.own = own
        with torch.no_grad():
            torch.testing.assert_close(self(inputs()), own(inputs()), rtol=1e-4, atol=1e-5)

    def forward(self, tokens: Tensor) -> Tensor:
        flat = tokens.flatten(0, -2)
        routing = self.own.route(flat)
        (first, second), (shift, last) = self.own.experts.weights, self.own.experts.biases
        outputs = torch.zeros(len(flat), second.shape[-1])
        for e in range(len(first)):
            rows, position = torch.where(routing.experts == e)
            hidden = (flat[rows] @ first[e] + shift[e]).relu()
            found = routing.weights[rows, position, None] * (hidden @ second[e] + last[e])
            outputs.index_add_(0, rows, found)
        return outputs.view(*tokens.shape[:-1], -1)


class ProductsAlone(nn.Module):
    """The lower bound: only the experts' matrix products, with equally many tokens per expert."""

    def __init__(self, own: MoELayer) -> None:
        super().__init__()
        self.first, self.second = own.experts.weights
        self.top_k = own.top_k

    def forward(self, tokens: Tensor) -> Tensor:
        groups = tokens.expand(self.top_k, -1, -1).reshape(len(self.first), -1, tokens.shape[-1])
        return (groups @ self.first @ self.second).view(self.top_k, *tokens.shape[1:]).sum(0, True)


def seconds_of(module: nn.Module) -> Callable[[], float]:
    tokens = inputs().view(1, TOKENS, FEATURES).requires_grad_()
    gradient = torch.randn(1, TOKENS, FEATURES, generator=torch.Generator().manual_seed(2))

    def passes() -> float:
        started = time.process_time()
        for _ in range(3):
            module(tokens).backward(gradient)
        return time.process_time() - started

    return passes


def qwen(experts: int, hidden: int, top_k: int, implementation: str) -> nn.Module:
    config = Qwen2MoeConfig(
        hidden_size=FEATURES,
        moe_intermediate_size=hidden,
        shared_expert_intermediate_size=hidden,
        num_experts=experts,
        num_experts_per_tok=top_k,
        experts_implementation=implementation,
    )
    block = Qwen2MoeSparseMoeBlock(config)
    torch.manual_seed(0)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.05)
    return block


def same_weights(block: nn.Module, experts: int, hidden: int, top_k: int, backend: str) -> MoELayer:
    own = layer(
        experts,
        hidden,
        top_k,
        backend,
        activation="swiglu",
        bias=False,
        shared_features=hidden,
        shared_gate=True,
    )
    with torch.no_grad():
        own.gate.weight.copy_(block.gate.weight)
        own.experts.weights[0].copy_(block.experts.gate_up_proj.mT)
        own.experts.weights[1].copy_(block.experts.down_proj.mT)
        shared = block.shared_expert
        own.shared.weights[0].copy_(torch.cat([shared.gate_proj.weight, shared.up_proj.weight]).T)
        own.shared.weights[1].copy_(shared.down_proj.weight.T)
        own.shared_gate.weight.copy_(block.shared_expert_gate.weight)
        tokens = inputs().unsqueeze(0)
        torch.testing.assert_close(own(tokens), block(tokens), rtol=1e-4, atol=1e-5)
    return own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only-auto", action="store_true", help="only the choice of a back-end")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        f"{TOKENS} tokens, {FEATURES} features, forward and backward, float32, "
        f"{arguments.threads} thread(s), torch {torch.__version__}, transformers "
        f"{transformers.__version__}, {platform.machine()}\n"
        "time of the first relative to the second, ratios of process CPU time, median [95 %]\n"
    )

    def show(what: str, slow: nn.Module, fast: nn.Module) -> None:
        ratio = paired_ratio(seconds_of(fast), seconds_of(slow), arguments.pairs)
        print(f"{what:<68} {ratio}", flush=True)

    for size in AUTO_SIZES:
        print(f"{size}: auto / fastest back-end: {auto_against_the_fastest(*size):.2f}", flush=True)
    for experts, hidden, top_k in () if arguments.only_auto else SHAPES:
        shape = f"{experts} experts of {hidden}, top {top_k}"
        fast = layer(experts, hidden, top_k, "grouped_mm")
        show(f"{shape}: the usual loop / grouped_mm", UsualLoop(fast), fast)
        show(f"{shape}: back-end loop / grouped_mm", layer(experts, hidden, top_k, "loop"), fast)
        show(f"{shape}: grouped_mm / its products alone", fast, ProductsAlone(fast))
        for implementation in ("eager", "grouped_mm"):
            block = qwen(experts, hidden, top_k, implementation)
            own = same_weights(block, experts, hidden, top_k, "grouped_mm")
            show(f"{shape}: Qwen2-MoE block, {implementation} / grouped_mm", block, own)


if __name__ == "__main__":
    main()
