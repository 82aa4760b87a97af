"""Compares SASRec on MovieLens-100k with RecTools' SASRec: NDCG@10, and time to its best value.

usage: python benchmarks/recommendation.py --peer PYTHON [--seeds 0 1 2] [--epochs 40]
           [--peer-epochs 60] [--peer-lr 0.004] [--peer-batch 32] [--peer-length 50]

PYTHON is the interpreter of a separate environment with RecTools and torch:
python -m venv PEER && PEER/bin/pip install "rectools[torch]==0.19.0"

Both use the same training sequences, the full softmax, and the network size, learning rate and
batch size of ``recommendation/tiny``. RecTools trains on the latest ``peer-length`` items of a
user, ours on all items, in windows of 50. Each runs in a process with one thread and writes its
scores of all items after each epoch. The same code computes ranks and NDCG for both; items that the
user has seen are not ranked. Seconds are process CPU time of training, without reading data,
building the network, and scoring. The best epoch is chosen by validation.
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from lightning_plugins.claims.statistics import paired_interval
from lightning_plugins.datamodules import InteractionDataModule
from lightning_plugins.litmodels import SequentialRecommender
from lightning_plugins.metrics.ranking import NDCG, target_ranks
from lightning_plugins.recipes import load_recipe

RECIPE = load_recipe("recommendation/tiny")
PARTS = ("validation", "test")
MARGIN = 0.01


class Curve(NamedTuple):
    """NDCG@10 after each epoch, and the CPU seconds of training until then."""

    seconds: list[float]
    validation: list[float]
    test: list[float]

    @property
    def best(self) -> int:
        return max(range(len(self.validation)), key=self.validation.__getitem__)

    def seconds_to(self, ndcg: float) -> float:
        reached = (s for s, v in zip(self.seconds, self.validation, strict=True) if v >= ndcg)
        return next(reached, math.inf)


class Export(Callback):
    """Writes the scores after each epoch; the time for this is not counted."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seconds = folder, 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.started = time.process_time()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.seconds += time.process_time() - self.started
        data = trainer.datamodule
        loaders = {"validation": data.val_dataloader(), "test": data.test_dataloader()}
        pl_module.eval()
        with torch.no_grad():
            found = {
                part: torch.cat([pl_module(batch["history"]) for batch in loader]).numpy()
                for part, loader in loaders.items()
            }
        pl_module.train()
        np.savez(self.folder / f"{trainer.current_epoch}.npz", seconds=self.seconds, **found)


def train_ours(folder: Path) -> None:
    settings = json.loads((folder / "settings.json").read_text())
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    seed_everything(settings["seed"])
    model = dict(RECIPE["model"]["init_args"])
    rate = model.pop("optimizer")["init_args"]["lr"]
    Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=settings["epochs"],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        callbacks=[Export(folder)],
    ).fit(
        SequentialRecommender(**model, optimizer=lambda p: torch.optim.AdamW(p, lr=rate)),
        datamodule=interactions(settings["seed"]),
    )


def interactions(seed: int = 0) -> InteractionDataModule:
    data = InteractionDataModule(**RECIPE["data"]["init_args"], seed=seed)
    data.setup()
    return data


def write_split(data: InteractionDataModule, folder: Path) -> None:
    train = data.parts.train
    users = np.repeat(np.arange(len(train)), [len(items) for items in train])
    questions = {part: getattr(data.parts, part) for part in PARTS}
    longest = max(len(question.history) for part in PARTS for question in questions[part])
    histories = {
        part: np.stack(
            [np.pad(one.history, (0, longest - len(one.history))) for one in questions[part]]
        )
        for part in PARTS
    }
    np.savez(
        folder / "split.npz",
        users=users,
        items=np.concatenate(train),
        num_items=data.num_items,
        **histories,
    )


def curve_of(
    command: list[str], folder: Path, settings: dict[str, Any], data: InteractionDataModule
) -> Curve:
    (folder / "settings.json").write_text(json.dumps(settings))
    run = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(run.stderr[-2000:])
    curve = Curve([], [], [])
    for epoch in range(settings["epochs"]):
        found = np.load(folder / f"{epoch}.npz")
        curve.seconds.append(float(found["seconds"]))
        for part in PARTS:
            getattr(curve, part).append(ndcg(found[part], getattr(data.parts, part)))
        (folder / f"{epoch}.npz").unlink()
    return curve


def ndcg(scores: np.ndarray, questions: list) -> float:
    table = torch.from_numpy(scores)
    for row, question in zip(table, questions, strict=True):
        row[torch.from_numpy(np.ascontiguousarray(question.history))] = -torch.inf
    metric = NDCG(10)
    metric.update(target_ranks(table, torch.tensor([question.target for question in questions])))
    return float(metric.compute())


def compare(arguments: argparse.Namespace) -> None:
    data = interactions()
    model = RECIPE["model"]["init_args"]
    shape = {name: model[name] for name in ("dim", "layers", "heads", "dropout")}
    peer = shape | {
        "lr": arguments.peer_lr,
        "batch_size": arguments.peer_batch,
        "max_length": arguments.peer_length,
        "epochs": arguments.peer_epochs,
        "mask_padding": arguments.peer_mask_padding,
    }
    worker = str(Path(__file__).with_name("recommendation_rectools.py"))
    commands = {
        "ours": ([sys.executable, __file__, "--train"], {"epochs": arguments.epochs}),
        "RecTools": ([arguments.peer, worker], peer),
    }
    print(f"{platform.machine()}, torch {torch.__version__}, one thread; both: {shape}")
    print(f"RecTools: {peer}")
    differences, shares = [], []
    for seed in arguments.seeds:
        curves = {}
        for name, (command, settings) in commands.items():
            with tempfile.TemporaryDirectory() as folder:
                write_split(data, Path(folder))
                curve = curve_of(command, Path(folder), settings | {"seed": seed}, data)
            curves[name] = curve
            print(
                f"seed {seed} {name:9} NDCG@10 test {curve.test[curve.best]:.4f} validation "
                f"{curve.validation[curve.best]:.4f} after epoch {curve.best + 1}, "
                f"{curve.seconds[curve.best]:.1f} s",
                flush=True,
            )
        ours, theirs = curves["ours"], curves["RecTools"]
        differences.append(ours.test[ours.best] - theirs.test[theirs.best])
        reached = ours.seconds_to(theirs.validation[theirs.best])
        shares.append(reached / theirs.seconds[theirs.best])
        print(
            f"seed {seed} ours reaches RecTools' best validation after {reached:.1f} s, "
            f"{shares[-1]:.2f} of its time",
            flush=True,
        )
    if len(differences) > 1:
        test = paired_interval(differences)
        low, high = test.interval
        print(
            f"difference of test NDCG@10: {test.estimate:+.4f}, 95 % interval "
            f"[{low:+.4f}, {high:+.4f}], goal: lower bound at least -{MARGIN}"
        )
    print(f"share of RecTools' time: median {statistics.median(shares):.2f}, goal: at most 0.5")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", help="Python interpreter with RecTools")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--peer-epochs", type=int, default=60)
    parser.add_argument("--peer-lr", type=float, default=4e-3)
    parser.add_argument("--peer-batch", type=int, default=32)
    parser.add_argument("--peer-length", type=int, default=50)
    parser.add_argument("--peer-mask-padding", action="store_true")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train_ours(arguments.train)
        return
    if arguments.peer is None:
        print(
            "skipped: set --peer to an interpreter with RecTools (--help shows how to install it)"
        )
        return
    probe = subprocess.run([arguments.peer, "-c", "import rectools.models"], capture_output=True)
    if probe.returncode:
        print(f"skipped: {arguments.peer} cannot import RecTools: {probe.stderr.decode()[-200:]}")
        return
    compare(arguments)


if __name__ == "__main__":
    main()
