"""The cost of LateSAM and of other implementations of SAM, as ratios of CPU time in one run.

usage: python benchmarks/late_sam.py [--pairs 32] [--steps 40] [--threads 1]

The peers are optional: pip install pytorch_optimizer temperon
"""

import argparse
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable

import torch
from lightning import __version__ as lightning_version
from lightning.pytorch import Callback, LightningModule, Trainer
from paired import Ratio, median_ratio, paired_ratio
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from lightning_plugins.callbacks import ExactResume, LateSAM

WIDTH, BATCH, CLASSES = 768, 128, 10
SKIPPED_STEPS = 5


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(),
        nn.Linear(WIDTH, CLASSES),
    )  # fmt: skip


def batches(steps: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(BATCH, WIDTH, generator=generator)
    labels = torch.randint(CLASSES, (BATCH,), generator=generator)
    return [(features, labels)] * steps


class Classifier(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def training_step(self, batch, batch_idx):
        return cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


class ManualSAM(Classifier):
    """The common manual-optimization recipe for ``davda54/sam``."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers().optimizer
        self.manual_backward(cross_entropy(self.network(batch[0]), batch[1]))
        parameters = list(self.parameters())
        originals = []
        with torch.no_grad():
            norm = torch.stack([p.grad.norm() for p in parameters]).norm()
            for p in parameters:
                originals.append(p.clone())
                p.add_(p.grad * (0.05 / (norm + 1e-12)))
        optimizer.zero_grad()
        self.manual_backward(cross_entropy(self.network(batch[0]), batch[1]))
        with torch.no_grad():
            for p, original in zip(parameters, originals, strict=True):
                p.copy_(original)
        optimizer.step()
        optimizer.zero_grad()


class Stopwatch(Callback):
    """Measures the CPU seconds of the steps after the first few."""

    seconds = 0.0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == SKIPPED_STEPS:
            self.started = time.process_time()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seconds = time.process_time() - self.started if batch_idx > SKIPPED_STEPS else 0.0


def fit(steps: int, *callbacks: Callback, module: LightningModule | None = None) -> float:
    stopwatch = Stopwatch()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=steps,  # a start beyond the end is accepted for a limited run
        callbacks=[*callbacks, stopwatch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(batches(steps), batch_size=None)  # type: ignore[arg-type]
    trainer.fit(module or Classifier(), loader)
    return stopwatch.seconds


def by_hand(
    steps: int, make_step: Callable[[nn.Module], Callable[[Tensor, Tensor], None]]
) -> float:
    model = network()
    step = make_step(model)
    for index, (features, labels) in enumerate(batches(steps)):
        if index == SKIPPED_STEPS:
            started = time.process_time()
        step(features, labels)
    return time.process_time() - started


def plain_loop(model: nn.Module) -> Callable[[Tensor, Tensor], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step(features: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad()
        cross_entropy(model(features), labels).backward()
        optimizer.step()

    return step


def pytorch_optimizer_loop(model: nn.Module) -> Callable[[Tensor, Tensor], None]:
    from pytorch_optimizer import SAM

    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=0.01, momentum=0.9)

    def step(features: Tensor, labels: Tensor) -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = cross_entropy(model(features), labels)
            loss.backward()
            return loss

        closure()
        optimizer.step(closure)

    return step


def temperon_loop(model: nn.Module) -> Callable[[Tensor, Tensor], None]:
    from temperon import Temperon

    base = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    optimizer = Temperon(base, total_steps=10**6, tail_frac=1.0, rho=0.05)

    def step(features: Tensor, labels: Tensor) -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = cross_entropy(model(features), labels)
            loss.backward()
            return loss

        optimizer.step(closure)

    return step


def share_of_a_step(callback: Callable[[], Callback], pairs: int, steps: int = 1000) -> Ratio:
    """The callback's CPU time per step, measured on a very small network, over a plain step.

    The cost does not depend on the network, and the step of a small one varies far less than it.
    """
    global WIDTH, BATCH
    plain = fit(steps // 10) / (steps // 10 - SKIPPED_STEPS)
    sizes, (WIDTH, BATCH) = (WIDTH, BATCH), (8, 1)
    try:
        shares: list[float] = []
        while len(shares) < pairs:
            first, with_first, with_second, second = (
                fit(steps), fit(steps, callback()), fit(steps, callback()), fit(steps)
            )  # fmt: skip
            for difference in (with_first - first, with_second - second):
                shares.append(difference / (steps - SKIPPED_STEPS) / plain)
    finally:
        WIDTH, BATCH = sizes
    return median_ratio(shares)


def peak_memory_bytes(with_sam: bool) -> int:
    """Peak resident memory of a new process that trains 50 M parameters for three steps."""
    program = (
        "import resource, torch, warnings; warnings.simplefilter('ignore')\n"
        "import late_sam as b\n"
        "b.WIDTH, b.BATCH = 5000, 1\n"
        f"b.fit(3, *([b.LateSAM(start=0)] if {with_sam} else []))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=sys.path[0]
    )
    return int(run.stdout.split()[-1]) * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--steps", type=int, default=40, help="steps per block")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    import logging

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    steps, pairs = arguments.steps, arguments.pairs
    parameters = sum(p.numel() for p in network().parameters())
    print(
        f"{parameters / 1e6:.2f} M parameters, fully connected, batch {BATCH}, SGD with momentum, "
        f"blocks of {steps} steps, {arguments.threads} thread(s), torch {torch.__version__}, "
        f"lightning {lightning_version}, {platform.machine()}\n"
        "ratios of process CPU time, median [95 % bounds]\n"
    )

    def late(start: float) -> Callable[[], float]:
        return lambda: fit(steps, LateSAM(start=start, unit="step"))

    def show(what: str, ratio: Ratio) -> None:
        print(f"{what:<66} {ratio}", flush=True)

    plain = lambda: fit(steps)  # noqa: E731
    show("inactive LateSAM / Trainer without it", paired_ratio(plain, late(steps), pairs))
    show("LateSAM step / plain step", paired_ratio(plain, late(0), pairs))
    exact = share_of_a_step(ExactResume, pairs)
    print(
        f"{'extra time of ExactResume, % of a plain step':<66} {100 * exact.median:.2f} "
        f"[{100 * exact.low:.2f}, {100 * exact.high:.2f}] of {exact.pairs} pairs",
        flush=True,
    )
    quarter = steps - round((steps - SKIPPED_STEPS) / 4)
    show(
        "LateSAM in the last quarter / Trainer without it",
        paired_ratio(plain, late(quarter), pairs),
    )
    manual = lambda: fit(steps, module=ManualSAM())  # noqa: E731
    show(
        "LateSAM / manual optimization with davda54's recipe", paired_ratio(manual, late(0), pairs)
    )
    bare = lambda: by_hand(steps, plain_loop)  # noqa: E731
    show("Trainer / plain torch loop", paired_ratio(bare, plain, pairs))
    for name, loop in (("pytorch_optimizer", pytorch_optimizer_loop), ("temperon", temperon_loop)):
        try:
            peer = lambda loop=loop: by_hand(steps, loop)  # noqa: E731
            peer()
        except ImportError:
            print(f"{name} is not installed: pip install {name}")
            continue
        show(f"LateSAM in a Trainer / {name} in a torch loop", paired_ratio(peer, late(0), pairs))
        show(f"  {name} step / plain torch loop", paired_ratio(bare, peer, pairs))
    extra = peak_memory_bytes(True) - peak_memory_bytes(False)
    large = (5000 * 5000 + 5000) * 2 + 5000 * CLASSES + CLASSES
    print(f"\nadditional peak resident memory: {extra / (4 * large):.2f} x trainable parameters")


if __name__ == "__main__":
    main()
