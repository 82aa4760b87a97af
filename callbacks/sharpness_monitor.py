"""Sharpness of the minimum that a run is in."""

import math
import time
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import default_collate

from lightning_plugins._lightning_compat import callbacks_of, metrics_untouched
from lightning_plugins.attacks.evaluation_mode import evaluation_mode
from lightning_plugins.callbacks.attacked_module import attack_loss, refuse_sharded
from lightning_plugins.callbacks.log_silenced import log_silenced
from lightning_plugins.curvature import (
    HessianOperator,
    hutch_plus_plus_trace,
    largest_eigenvalues,
    sam_gap,
)
from lightning_plugins.nn.buffers import buffers_untouched
from lightning_plugins.nn.random_state import seeded
from lightning_plugins.reports.curves import curve_picture
from lightning_plugins.reports.to_loggers import send_picture


class SharpnessMonitor(Callback):
    """Measures the largest eigenvalues of the loss's Hessian, and draws them over the run.

    The loss is the module's ``loss(images, labels)``, if it has a method with these two parameter
    names, else the cross-entropy of ``module(images)``; on a fixed subset of the training data, in
    single precision, in evaluation mode. The run itself is, bit for bit, the run without the
    callback. The subset is fetched once, with whatever augmentation the data set does, drawn from
    ``seed``.

    It measures at the end of every ``every_n_epochs``-th epoch, but leaves a measurement out while
    the time spent so far is more than ``max_share`` of the time of training; and always at the end
    of the run. A largest eigenvalue takes 10 to 50 passes with two backwards each over the subset.

    Logs ``sharpness/lambda_max``, ``sharpness/lambda_2`` and so on; ``sharpness/sam_gap``, the rise
    of the loss at the worst point within ``rho``; ``sharpness/trace`` and
    ``sharpness/trace_standard_error``. The picture ``sharpness`` goes to the loggers that take
    pictures, else to the log folder; the first step of any callback that has ``first_active_step``,
    such as ``LateSAM``, is marked in it.

    Args:
        every_n_epochs: at the end of which epochs.
        max_share: of the time of training that measuring may take; 1 or more is no limit.
        top_k: eigenvalues.
        trace_probes: products for Hutch++; 0 leaves the trace out, else at least 3.
        rho: radius for ``sharpness/sam_gap``; 0 leaves it out.
        num_samples: of the subset.
        batch_size: of its batches; the measured loss does not depend on it, but memory does.
        mode: ``eval``, or ``train`` for batch normalization with the statistics of each batch;
            dropout is off in both.
        seed: of the subset and of the measures' random vectors.

    Raises:
        ValueError: an argument outside its range.
        MisconfigurationException: a strategy that shards the parameters, or a training data loader
            without a data set that can be indexed.

    Example::

        trainer = Trainer(max_epochs=200, callbacks=[LateSAM(), SharpnessMonitor()])
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        max_share: float = 0.01,
        top_k: int = 1,
        trace_probes: int = 0,
        rho: float = 0.05,
        num_samples: int = 1000,
        batch_size: int = 1000,
        mode: Literal["eval", "train"] = "eval",
        seed: int = 0,
    ) -> None:
        positive = {
            "every_n_epochs": every_n_epochs,
            "top_k": top_k,
            "num_samples": num_samples,
            "batch_size": batch_size,
        }
        for name, value in positive.items():
            if value < 1:
                raise ValueError(f"{name}={value}: expected at least 1")
        if not max_share >= 0:
            raise ValueError(f"max_share={max_share}: expected a share of 0 or more")
        if trace_probes and trace_probes < 3:
            raise ValueError(f"trace_probes={trace_probes}: expected 0, or at least 3")
        if not 0 <= rho < math.inf:
            raise ValueError(f"rho={rho}: expected a finite radius, or 0")
        if mode not in ("eval", "train"):
            raise ValueError(f"mode={mode!r}: expected 'eval' or 'train'")
        self.every_n_epochs = every_n_epochs
        self.max_share = max_share
        self.top_k = top_k
        self.trace_probes = trace_probes
        self.rho = rho
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.mode = mode
        self.seed = seed
        self.steps: list[int] = []
        self.values: dict[str, list[float]] = {}
        self._batches: list[tuple[Any, ...]] = []
        self._began = 0.0
        self._spent = 0.0

    def check(self, trainer: Trainer) -> None:
        """Refuse a Trainer that this callback cannot work in, before anything is prepared."""
        refuse_sharded(trainer, "SharpnessMonitor")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot work."""
        self.check(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the subset, while a mistake costs nothing."""
        self._began, self._spent = time.monotonic(), 0.0
        self._batches = self._subset(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, if it is time and there is time."""
        if (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        elapsed = time.monotonic() - self._began
        if self._spent <= self.max_share * elapsed or self.max_share >= 1:
            self._measure_and_log(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the end of the run, and draw the curve."""
        if not self.steps or self.steps[-1] != trainer.global_step:
            self._measure_and_log(trainer, pl_module)
        self._batches = []
        if trainer.is_global_zero:
            self._draw(trainer)

    def state_dict(self) -> dict[str, Any]:
        """What was measured so far, so that a resumed run draws the whole curve."""
        return {"steps": self.steps, "values": self.values}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the curve."""
        self.steps = list(state_dict["steps"])
        self.values = {name: list(curve) for name, curve in state_dict["values"].items()}

    def _measure_and_log(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The weights are the same on every rank, so one measures; the others meet it at the next
        # collective operation.
        if not trainer.is_global_zero:
            return
        started = time.monotonic()
        measured = self._measure(pl_module)
        self._spent += time.monotonic() - started
        self.steps.append(trainer.global_step)
        for name, value in measured.items():
            missing = len(self.steps) - 1 - len(self.values.setdefault(name, []))
            self.values[name] += [math.nan] * missing + [value]
        metrics = {f"sharpness/{name}": value for name, value in measured.items()}
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)
        trainer.callback_metrics.update({k: torch.tensor(v) for k, v in metrics.items()})

    def _measure(self, pl_module: LightningModule) -> dict[str, float]:
        loss = attack_loss(pl_module)
        parameters = [parameter for parameter in pl_module.parameters() if parameter.requires_grad]
        with (
            evaluation_mode(pl_module),
            buffers_untouched(pl_module),
            metrics_untouched(pl_module),
            log_silenced(pl_module),
            seeded(self.seed),
            torch.compiler.set_stance("force_eager"),  # compiled code has no second derivative
        ):
            if self.mode == "train":
                for module in pl_module.modules():
                    if isinstance(module, _BatchNorm):
                        module.training = True
            operator = HessianOperator(loss, parameters, self._batches)
            vectors: dict[str, Any] = {
                "seed": self.seed,
                "dtype": parameters[0].dtype,
                "device": parameters[0].device,
            }
            found = largest_eigenvalues(operator, operator.dimension, self.top_k, **vectors).values
            measured = {
                "lambda_max" if place == 0 else f"lambda_{place + 1}": float(value)
                for place, value in enumerate(found)
            }
            if self.rho:
                measured["sam_gap"] = sam_gap(loss, parameters, self._batches, self.rho)
            if self.trace_probes:
                trace = hutch_plus_plus_trace(
                    operator, operator.dimension, self.trace_probes, **vectors
                )
                measured["trace"] = trace.value
                measured["trace_standard_error"] = trace.standard_error
        return measured

    def _subset(self, trainer: Trainer) -> list[tuple[Any, ...]]:
        loader = trainer.train_dataloader
        dataset: Any = getattr(loader, "dataset", None)
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise MisconfigurationException(
                "SharpnessMonitor needs a training data loader with a data set that has a length "
                f"and can be indexed, got {type(loader).__name__} of {type(dataset).__name__}"
            )
        generator = torch.Generator().manual_seed(self.seed)
        chosen = torch.randperm(len(dataset), generator=generator)[: self.num_samples].tolist()
        collate = getattr(loader, "collate_fn", None) or default_collate
        with seeded(self.seed):
            parts = [
                collate([dataset[index] for index in chosen[start : start + self.batch_size]])
                for start in range(0, len(chosen), self.batch_size)
            ]
            return [tuple(trainer.strategy.batch_to_device(part)) for part in parts]

    def _draw(self, trainer: Trainer) -> None:
        starts = {
            type(c).__name__: getattr(c, "first_active_step", None) for c in callbacks_of(trainer)
        }
        marks = {name: step for name, step in starts.items() if step is not None}
        shown = {name: c for name, c in self.values.items() if name != "trace_standard_error"}
        try:
            picture = curve_picture(self.steps, shown, marks)
        except ImportError as error:
            rank_zero_warn(f"the sharpness curve was not drawn: {error}")
            return
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        send_picture("sharpness", picture, trainer.loggers, folder)
