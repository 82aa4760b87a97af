"""What a run did, in a few lines at its end."""

import os
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden

from lightning_plugins._lightning_compat.loops import callbacks_of

_MOST_METRICS = 6
_MOST_FILES = 8


class RunSummary(Callback):
    """Prints a summary when ``fit`` has ended.

    The lines are: the folder, steps and time; the first and the last value of each metric that a
    callback monitors or that the module logs with ``prog_bar=True``; what the plugins did; the
    files written to the folder; and the next command.

    A callback, strategy, module or DataModule adds a line by a method ``run_summary(trainer)``,
    which returns a text or None. It is called on the first rank only.

    The command line appends it to the Trainer's callbacks.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._began = 0.0
        self._first_step = 0
        self._metrics: dict[str, list[float]] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the folder, the time and the step."""
        self._folder = Path(trainer.log_dir or trainer.default_root_dir)  # collective
        self._began, self._first_step = time.time(), trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Read the metrics of the first step; later ones are read once an epoch."""
        if trainer.global_step == self._first_step + 1:
            self._read_metrics(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the metrics."""
        self._read_metrics(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the metrics, also between epochs and in a last validation."""
        if not trainer.sanity_checking:
            self._read_metrics(trainer)

    def _read_metrics(self, trainer: Trainer) -> None:
        monitored = [getattr(callback, "monitor", None) for callback in callbacks_of(trainer)]
        shown = [_without_suffix(name) for name in trainer.progress_bar_metrics]
        values = trainer.callback_metrics
        for name in [*monitored, *shown]:
            if name in values:
                # The first and the last value.
                self._metrics[name] = [*self._metrics.get(name, [])[:1], float(values[name])]

    def lines(self, trainer: Trainer) -> list[str]:
        """Return the lines of the summary; none if training did not start in this process."""
        folder = self._folder
        if folder is None:
            return []
        seconds = time.time() - self._began
        since = f" from step {self._first_step}" if self._first_step else ""
        steps = trainer.global_step - self._first_step
        lines = [f"{folder}: {_counted(steps, 'step')}{since} in {_duration(seconds)}"]
        # Validation is what one looks for first.
        metrics = sorted(self._metrics.items(), key=lambda pair: not pair[0].startswith("val"))
        width = max((len(name) for name, _ in metrics[:_MOST_METRICS]), default=0)
        for name, values in metrics[:_MOST_METRICS]:
            change = " -> ".join(f"{value:.4g}" for value in dict.fromkeys(values))
            lines.append(f"  {name:<{width}}  {change}")
        parts = [*callbacks_of(trainer), trainer.strategy, trainer.lightning_module]
        parts.append(getattr(trainer, "datamodule", None))
        for part in parts:
            summary = getattr(part, "run_summary", None)
            if callable(summary) and (text := summary(trainer)):
                lines.append(f"  {type(part).__name__}: {text}")
        files = self._files(folder)
        if files:
            more = f" and {len(files) - _MOST_FILES} more" if len(files) > _MOST_FILES else ""
            lines.append(f"  files: {', '.join(files[:_MOST_FILES])}{more}")
        if any(name.endswith(".ckpt") for name in files):
            lines.append(f"next: lightning-plugins {_evaluation(trainer)} --run {folder}")
        return lines

    def _files(self, folder: Path) -> list[str]:
        """Return the files of this run, the pictures and reports first."""
        if folder.resolve() == Path.cwd():  # without a logger, among the user's own files
            return [str(path) for path in sorted(folder.glob("checkpoints/*.ckpt"))]
        found = (path for path in folder.rglob("*") if path.is_file())
        written = [path for path in found if path.stat().st_mtime >= self._began - 1]
        names = [str(path.relative_to(folder)) for path in written]
        names = [name for name in names if ".ckpt" not in os.path.dirname(name)]  # shards of one
        return sorted(names, key=lambda name: (name.endswith(".ckpt"), name))


def _without_suffix(name: str) -> str:
    """The name under which a value was logged, also once per step and once per epoch."""
    return name.removesuffix("_step").removesuffix("_epoch")


def _evaluation(trainer: Trainer) -> str:
    """The command that evaluates the run: ``test`` if module and data have a test."""
    data = getattr(trainer, "datamodule", None)
    has_test = is_overridden("test_step", trainer.lightning_module) and (
        is_overridden("test_dataloader", data, LightningDataModule)
        if data is not None
        else is_overridden("test_dataloader", trainer.lightning_module)
    )
    return "test" if has_test else "validate"


def _counted(number: int, word: str) -> str:
    return f"{number:,} {word}" + ("" if number == 1 else "s")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
