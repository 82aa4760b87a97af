"""Trains a recipe inside an experiment, with an unmodified LightningCLI."""

import logging
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightning_plugins.recipes import load_recipe, merge

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer


@dataclass(frozen=True)
class TrainedRecipe:
    """The result of a run.

    ``fit_seconds`` is the wall time of ``Trainer.fit``, ``fit_metrics`` are the last values logged
    during fit, and ``test_metrics`` those of the test set.
    """

    model: "LightningModule"
    datamodule: "LightningDataModule"
    trainer: "Trainer"
    fit_seconds: float
    fit_metrics: dict[str, float]
    test_metrics: dict[str, float]


def train_recipe(
    config: dict[str, Any], seed: int, callbacks: Sequence["Callback"] = ()
) -> TrainedRecipe:
    """Fit and test a recipe.

    Loggers, checkpoints and progress bars are off. Files that callbacks write go to a temporary
    folder, which is removed.

    Args:
        config: ``recipe``, the name of the recipe, and ``overrides``, values by dotted key.
        seed: Seed of the run and of the order of the data.
        callbacks: Callbacks in addition to those of the recipe.

    Raises:
        ValueError: If there is no such recipe.
    """
    from lightning.pytorch.cli import LightningCLI

    resolved = _resolved(config, seed)
    with tempfile.TemporaryDirectory() as folder, quiet():
        resolved["trainer"]["default_root_dir"] = folder
        cli = LightningCLI(
            run=False,
            args=resolved,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            trainer_defaults={"callbacks": list(callbacks)},
        )
        started = time.perf_counter()
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
        fit_seconds = time.perf_counter() - started
        fit_metrics = {k: float(v) for k, v in cli.trainer.callback_metrics.items()}
        (metrics,) = cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
    test_metrics = {name: float(value) for name, value in metrics.items()}
    return TrainedRecipe(
        cli.model, cli.datamodule, cli.trainer, fit_seconds, fit_metrics, test_metrics
    )


def _resolved(config: dict[str, Any], seed: int) -> dict[str, Any]:
    resolved = load_recipe(config["recipe"])
    for key, value in config["overrides"].items():
        resolved = merge(resolved, _nested(key, value))
    resolved = merge(resolved, _nested("data.init_args.seed", seed))
    resolved["seed_everything"] = seed
    trainer = resolved["trainer"]
    trainer["callbacks"] = [
        callback
        for callback in trainer.get("callbacks", [])
        if not callback["class_path"].endswith(".ModelCheckpoint")
    ]
    for switch in ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"):
        trainer[switch] = False
    return resolved


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress Lightning's hints, which are meant for a single run."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for hint in ("does not have many workers", "LightningCLI's args parameter", "LeafSpec"):
                warnings.filterwarnings("ignore", f".*{hint}.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
