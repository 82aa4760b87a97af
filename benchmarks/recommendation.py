"""Compares SASRec on MovieLens-100k with RecTools' and RecBole's: NDCG@10, HR@10 and time.

usage: python benchmarks/recommendation.py [--rectools PYTHON] [--recbole PYTHON]
           [--seeds 0 1 2 3 4] [--rows FILE] [--settings JSON]

PYTHON is the interpreter of a separate environment with the library and torch. RecBole 1.2.1
requires pandas below 3: pip install --no-deps recbole==1.2.1 colorlog colorama "pandas<3" pytz

All use the same training sequences, the full softmax and the network size of
``recommendation/tiny``. RecTools also uses its learning rate and batch size, and trains on the
latest ``max_length`` items of a user; RecBole trains on every prefix of a user's items with its own
learning rate; ours trains on all items, in windows of 50. Each runs in a process with one thread
and writes its scores of all items after each epoch. The same code computes the metrics for all;
items that the user has seen are not ranked. Seconds are process CPU time of training, without
reading data, building the network, and scoring. The best epoch is chosen by validation. Finished
runs are kept in FILE.
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
from lightning_plugins.metrics.ranking import NDCG, HitRate, target_ranks
from lightning_plugins.recipes import load_recipe

RECIPE = load_recipe("recommendation/tiny")
PARTS = ("validation", "test")
MARGIN = 0.005


class Curve(NamedTuple):
    """NDCG@10 and the test part's HR@10 after each epoch, and the CPU seconds until then."""

    seconds: list[float]
    validation: list[float]
    test: list[float]
    hit_rate: list[float]

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
    curve = Curve([], [], [], [])
    for epoch in range(settings["epochs"]):
        found = np.load(folder / f"{epoch}.npz")
        curve.seconds.append(float(found["seconds"]))
        of_validation, _ = ndcg_and_hit_rate(found["validation"], data.parts.validation)
        of_test, hit_rate = ndcg_and_hit_rate(found["test"], data.parts.test)
        curve.validation.append(of_validation)
        curve.test.append(of_test)
        curve.hit_rate.append(hit_rate)
        (folder / f"{epoch}.npz").unlink()
    return curve


def ndcg_and_hit_rate(scores: np.ndarray, questions: list) -> tuple[float, float]:
    table = torch.from_numpy(scores)
    for row, question in zip(table, questions, strict=True):
        row[torch.from_numpy(np.ascontiguousarray(question.history))] = -torch.inf
    ranks = target_ranks(table, torch.tensor([question.target for question in questions]))
    metrics = NDCG(10), HitRate(10)
    for metric in metrics:
        metric.update(ranks)
    ndcg, hit_rate = (float(metric.compute()) for metric in metrics)
    return ndcg, hit_rate


def libraries(arguments: argparse.Namespace) -> dict[str, tuple[list[str], dict[str, Any]]]:
    """Return the command and the settings of each library that can be run."""
    model = RECIPE["model"]["init_args"]
    shape = {name: model[name] for name in ("dim", "layers", "heads", "dropout")}
    here = Path(__file__)
    found = {"ours": ([sys.executable, __file__, "--train"], {"epochs": arguments.epochs})}
    print(f"{platform.machine()}, torch {torch.__version__}, one thread; all: {shape}")
    for name, python, settings in (
        (
            "RecTools",
            arguments.rectools,
            {"epochs": 60, "lr": 4e-3, "batch_size": 32, "max_length": 50, "mask_padding": False},
        ),
        (
            "RecBole",
            arguments.recbole,
            {"epochs": 10, "lr": 1e-3, "batch_size": 256, "max_length": 50},
        ),
    ):
        if python is None:
            print(f"{name}: skipped, --{name.lower()} is not set")
            continue
        probe = subprocess.run([python, "-c", f"import {name.lower()}"], capture_output=True)
        if probe.returncode:
            print(f"{name}: skipped, {probe.stderr.decode()[-200:]}")
            continue
        settings |= json.loads(arguments.settings).get(name, {})
        worker = here.with_name(f"recommendation_{name.lower()}.py")
        found[name] = ([python, str(worker)], shape | settings)
        print(f"{name}: {settings}")
    return found


def compare(arguments: argparse.Namespace) -> None:
    data = interactions()
    curves: dict[str, dict[int, Curve]] = {}
    if arguments.rows.exists():
        for line in arguments.rows.read_text().splitlines():
            row = json.loads(line)
            curves.setdefault(row["name"], {})[row["seed"]] = Curve(*row["curve"])
    for seed in arguments.seeds:
        for name, (command, settings) in libraries(arguments).items():
            if seed in curves.setdefault(name, {}):
                continue
            with tempfile.TemporaryDirectory() as folder:
                write_split(data, Path(folder))
                curve = curve_of(command, Path(folder), settings | {"seed": seed}, data)
            curves[name][seed] = curve
            with arguments.rows.open("a") as rows:
                rows.write(json.dumps({"name": name, "seed": seed, "curve": curve}) + "\n")
            print(
                f"seed {seed} {name:9} NDCG@10 test {curve.test[curve.best]:.4f} validation "
                f"{curve.validation[curve.best]:.4f} after epoch {curve.best + 1} of "
                f"{len(curve.test)}, {curve.seconds[curve.best]:.1f} s",
                flush=True,
            )
    report({name: of_name for name, of_name in curves.items() if of_name})


def report(curves: dict[str, dict[int, Curve]]) -> None:
    """Print means over seeds, and paired differences and times beside each library."""
    print("\n| library | NDCG@10 | HR@10 | best epoch | CPU seconds until then | seeds |")
    print("|---|---|---|---|---|---|")
    for name, of_name in curves.items():
        best = [(curve, curve.best) for curve in of_name.values()]
        ndcg, hits = [c.test[b] for c, b in best], [c.hit_rate[b] for c, b in best]
        epochs, seconds = [b + 1 for _, b in best], [c.seconds[b] for c, b in best]
        print(
            f"| {name} | {mean_and_deviation(ndcg)} | {mean_and_deviation(hits)} | "
            f"{statistics.median(epochs):.0f} | {statistics.median(seconds):.0f} | {len(best)} |"
        )
    for name in curves.keys() - {"ours"}:
        shared = sorted(curves["ours"].keys() & curves[name].keys())
        pairs = [(curves["ours"][seed], curves[name][seed]) for seed in shared]
        shares = [
            ours.seconds_to(theirs.validation[theirs.best]) / theirs.seconds[theirs.best]
            for ours, theirs in pairs
        ]
        print(
            f"{name}: our time to its best validation NDCG@10, as a share of its time: "
            f"{', '.join(f'{share:.2f}' for share in shares)}; goal for RecTools: at most 0.5"
        )
        if len(pairs) < 2:
            continue
        for what, values in (
            ("NDCG@10", [a.test[a.best] - b.test[b.best] for a, b in pairs]),
            ("HR@10", [a.hit_rate[a.best] - b.hit_rate[b.best] for a, b in pairs]),
        ):
            test = paired_interval(values)
            low, high = test.interval
            print(
                f"{name}: our {what} minus its: {test.estimate:+.4f}, 95 % interval "
                f"[{low:+.4f}, {high:+.4f}], goal: lower bound at least -{MARGIN}"
            )


def mean_and_deviation(values: list[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{deviation}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rectools", help="Python interpreter with RecTools")
    parser.add_argument("--recbole", help="Python interpreter with RecBole")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument(
        "--settings", default="{}", help='other settings, JSON: {"RecTools": {"max_length": 100}}'
    )
    parser.add_argument(
        "--rows",
        type=Path,
        default=Path("runs/recommendation_benchmark.jsonl"),
        help="finished runs; they are not repeated",
    )
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train_ours(arguments.train)
        return
    arguments.rows.parent.mkdir(parents=True, exist_ok=True)
    compare(arguments)


if __name__ == "__main__":
    main()
