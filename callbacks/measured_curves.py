"""The common part of callbacks that measure training: curves, their logging and their picture."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lightning_plugins.callbacks.plugin_callback import PluginCallback
from lightning_plugins.callbacks.replica_check import add_replica_check
from lightning_plugins.reports.drawing import Picture
from lightning_plugins.reports.send_picture import send_picture


class MeasuredCurves(PluginCallback):
    """Base class of callbacks that keep one curve for each metric they measure.

    A new run starts with empty curves; a resumed run continues those of the checkpoint.

    Attributes:
        steps: The optimizer steps at which something was measured.
        values: For each metric, one value for each entry of ``steps``; NaN where it is missing.
    """

    results: ClassVar[tuple[str, ...]] = ("steps", "values")

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.values: dict[str, list[float]] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start new curves for a new run."""
        if stage == "fit":
            add_replica_check(trainer)
        if stage == "fit" and trainer.global_step == 0:
            self.steps, self.values = [], {}

    def state_dict(self) -> dict[str, Any]:
        """Return the curves, so that a resumed run draws them from the first step."""
        return {"steps": list(self.steps), "values": {k: list(v) for k, v in self.values.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the curves of a checkpoint."""
        self.steps = list(state_dict["steps"])
        self.values = {name: list(curve) for name, curve in state_dict["values"].items()}

    def run_summary(self, trainer: Trainer) -> str | None:
        """Return when the callback measured, for the summary of the command line."""
        if not self.steps:
            return None
        return f"{len(self.steps):,} measurements, steps {self.steps[0]:,} to {self.steps[-1]:,}"

    def _append(self, step: int, measured: Mapping[str, float]) -> None:
        """Add values of one step; a second call with the same step adds metrics to it."""
        if self.steps[-1:] != [step]:
            self.steps.append(step)
        for name in {**self.values, **measured}:
            curve = self.values.setdefault(name, [])
            curve += [math.nan] * (len(self.steps) - len(curve))
            curve[-1] = measured.get(name, curve[-1])


def log_measurement(trainer: Trainer, metrics: Mapping[str, float]) -> None:
    """Log metrics that are the same on all ranks, in a hook where ``LightningModule.log`` fails."""
    # On every rank, because each rank checks what ModelCheckpoint monitors.
    trainer.callback_metrics.update({name: torch.tensor(x) for name, x in metrics.items()})
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            logger.log_metrics(dict(metrics), step=trainer.global_step)


def log_picture(trainer: Trainer, name: str, draw: Callable[[], Picture | None]) -> None:
    """Draw a picture on the first rank and send it to the loggers, or else to the log folder.

    Call it on every rank, because reading ``trainer.log_dir`` is a collective operation. Without
    matplotlib, a warning is printed instead.

    Args:
        trainer: The Trainer of the run.
        name: The name of the picture, for example ``sharpness``.
        draw: Returns the picture, or None if there is nothing to draw.
    """
    folder = Path(trainer.log_dir or trainer.default_root_dir)
    if not trainer.is_global_zero:
        return
    try:
        picture = draw()
    except ImportError as error:
        rank_zero_warn(f"the picture {name!r} was not drawn: {error}")
        return
    if picture is not None:
        send_picture(name, picture, trainer.loggers, folder)
