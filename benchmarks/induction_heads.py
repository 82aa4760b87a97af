"""Overhead of HeadScores, and errors of the constructed induction heads.

Overhead: the time of one measurement of `HeadScores` relative to one training step, and its share
of a run at the default interval, for the recipe `induction_heads/repeats` and for a GPT-2 of 1 M
parameters. Errors: the difference between the constructions and the functions that they
approximate, by heads, length and rank; these are deterministic.

usage: python benchmarks/induction_heads.py [--steps 200] [--rounds 5] [--only cost|errors]
"""

import argparse
import logging
import platform
import statistics
import tempfile
import time
import warnings
from typing import Any

import torch
from lightning import __version__ as lightning_version
from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from lightning_plugins.callbacks import HeadScores
from lightning_plugins.datamodules import RepeatedSequenceDataModule
from lightning_plugins.litmodels import CausalLM, InContextRepeats
from lightning_plugins.nn.induction import (
    ConstructedInductionHead,
    SeparatedSimilarity,
    bilinear,
    in_context_n_gram,
)

GPT2 = {
    "n_embd": 128,
    "n_layer": 4,
    "n_head": 4,
    "n_inner": 512,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


class Repeats(RepeatedSequenceDataModule):
    """Windows without their periods, the format of `CausalLM`."""

    def draw(self) -> Any:
        return super().draw()[0]


def small() -> tuple[LightningModule, LightningDataModule]:
    return InContextRepeats(), RepeatedSequenceDataModule()


def gpt2() -> tuple[LightningModule, LightningDataModule]:
    module = CausalLM("gpt2", vocab_size=256, context_length=128, config=GPT2)
    return module, Repeats(vocab_size=256, length=129, max_period=64, batch_size=16)


class Timed(HeadScores):
    """Records the CPU time of each measurement; the first one is a warm-up."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def measure(self, pl_module: LightningModule) -> Any:
        started = time.process_time()
        scores = super().measure(pl_module)
        self.seconds.append(time.process_time() - started)
        return scores


def cost(name: str, make: Any, steps: int, rounds: int) -> None:
    """Print the share of measurements at the default interval in the CPU time of `fit`."""
    shares, ratios = [], []
    for _ in range(rounds):
        torch.manual_seed(0)
        watch = Timed()
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(
                accelerator="cpu",
                max_steps=steps,
                limit_val_batches=0,
                logger=False,
                callbacks=[watch],
                default_root_dir=folder,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            module, data = make()
            started = time.process_time()
            trainer.fit(module, datamodule=data)
            total = time.process_time() - started
        one = statistics.median(watch.seconds[1:])
        step = (total - sum(watch.seconds)) / steps  # includes the figure, which is drawn once
        ratios.append(one / step)
        shares.append(one / (one + watch.every_n_steps * step))
    print(
        f"{name}: a measurement takes {statistics.median(ratios):.2f} steps; every "
        f"{watch.every_n_steps} steps it takes {100 * statistics.median(shares):.2f} % "
        f"[{100 * min(shares):.2f}, {100 * max(shares):.2f}] of the time of {rounds} runs"
    )


def errors() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = 2 * torch.rand(500, 60, 2, generator=generator, dtype=torch.float64) - 1
    print("\nlargest error, tokens uniform in [-1, 1]², W = I/2, lengths 8, 20, 60")
    for p in (2.0, 4.0, 8.0, 16.0):
        print(f"IH_2, one head, p = {p:2g}: {_errors(tokens, 2, 1, p)}")
    for n in (3, 4):
        for heads in (n - 1, 4, 6, 8, 12):
            print(f"IH_{n}, {heads:2d} heads, β = 0.3: {_errors(tokens, n, heads, 0.3)}")
            exact = _errors(tokens, n, heads, 0.3, exact_normalizer=True)
            print(f"  … with the normalizer of the proof: {exact}")
    print("\nGIH_2 with g(u, v) = 2 exp(-2 (u - v)²), largest error by rank (knots 8, 32, 128)")
    scalars = tokens[..., :1]
    expected = in_context_n_gram(scalars, lambda q, k: _bump(q[:, None], k)[..., 0])
    for rank in (1, 2, 3, 4, 6, 8):
        found = []
        for knots in (8, 32, 128):
            similarity = SeparatedSimilarity(_bump, rank, knots, reach=1.0)
            head = ConstructedInductionHead(1, 2, similarity, 1, beta=30.0)
            found.append(f"{(head(scalars) - expected).abs().max().item():.1e}")
        print(f"rank {rank}: {', '.join(found)}")


def _errors(tokens: torch.Tensor, n: int, heads: int, beta: float, **arguments: Any) -> str:
    similarity = bilinear(0.5 * torch.eye(2 * (n - 1), dtype=torch.float64))
    head = ConstructedInductionHead(2, n, similarity, heads, beta, **arguments)
    found = []
    for length in (8, 20, 60):
        short = tokens[:, :length]
        error = (head(short) - in_context_n_gram(short, similarity, n)).abs().max().item()
        found.append(f"{error:.1e}")
    return ", ".join(found)


def _bump(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return 2 * torch.exp(-2 * (u - v) ** 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["cost", "errors"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    print(
        f"torch {torch.__version__}, lightning {lightning_version}, {platform.machine()}, "
        "one thread, process CPU time"
    )
    if arguments.only != "errors":
        cost("repeats, 37k parameters", small, arguments.steps, arguments.rounds)
        cost("GPT-2 of 0.8 M parameters", gpt2, arguments.steps // 5, arguments.rounds)
    if arguments.only != "cost":
        errors()


if __name__ == "__main__":
    main()
