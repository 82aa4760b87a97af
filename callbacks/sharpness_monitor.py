"""Measures the sharpness of the loss during training."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.nn import SyncBatchNorm
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_plugins._lightning_compat.loops import callbacks_of
from lightning_plugins._lightning_compat.processes import data_share
from lightning_plugins.callbacks.batches import (
    SubsetBatch,
    collected_batch,
    fixed_subset,
    has_fixed_subset,
)
from lightning_plugins.callbacks.extra_passes import (
    batch_loss,
    warn_of_iterators,
    while_measuring,
)
from lightning_plugins.callbacks.measured_curves import (
    MeasuredCurves,
    log_measurement,
    log_picture,
)
from lightning_plugins.callbacks.unsupported_strategies import refuse_sharded
from lightning_plugins.curvature import (
    ShardedHessian,
    at_least_single_precision,
    measure_sharded_sharpness,
    measure_sharpness,
)
from lightning_plugins.nn.shards import has_shards
from lightning_plugins.reports.run_pictures import Picture, curve_picture


class SharpnessMonitor(MeasuredCurves):
    """Measures the largest eigenvalues of the loss's Hessian, and draws them over the run.

    The measurement uses a fixed subset of the data, evaluation mode, and single precision (double
    for double weights). The run itself is, bit for bit, the run without the callback. The subset is
    fetched once; random augmentation is drawn with ``seed``. If the data set has a method
    ``without_augmentation()``, its return value is used instead. A training loader without a data
    set that can be indexed (iterable data, ``batch_size=None``, several loaders) is not read: the
    subset is then a copy of the run's first batches, at least ``num_samples`` samples or the first
    epoch; a resumed run has another subset. With several processes the first
    one measures and broadcasts the result. If the run has diverged, all values are NaN.

    Under FSDP2, every process measures its share of the subset, whose size is rounded down to a
    multiple of the number of processes. Products with the Hessian are central differences of the
    gradient, 1e-3 relative to the exact ones, because FSDP2 has no second derivative; the trace is
    Hutchinson's estimate.

    It measures at the end of every ``every_n_epochs``-th epoch. To limit its cost, it skips a
    measurement if this one and one more at the end of the run, each as long as the last one, would
    exceed ``max_share`` of the elapsed time. The first measurement and the one at the end of the
    run are never skipped, so a run that is shorter than ``2 / max_share`` measurements spends a
    larger share. Drawing the picture takes a few tenths of a second once. A largest eigenvalue
    takes 10 to 50 passes over the subset, with two backward passes each; a smaller ``num_samples``
    makes it cheaper.

    Logs ``sharpness/lambda_max``, ``sharpness/lambda_2`` and so on; ``sharpness/sam_gap``, the rise
    of the loss at the worst point within ``rho``; ``sharpness/trace`` and
    ``sharpness/trace_standard_error``. The picture ``sharpness`` is sent to the loggers that accept
    pictures, or else written to the log folder. It marks the first active step of every callback
    that has an attribute ``first_active_step``, such as ``LateSAM``.

    Args:
        every_n_epochs: The number of epochs between measurements.
        max_share: The largest share of the training time for measurements; 1 or more is no limit.
        top_k: The number of eigenvalues.
        trace_probes: The number of products for Hutch++, at least 3; 0 omits the trace.
        rho: The radius for ``sharpness/sam_gap``; 0 omits it.
        num_samples: The number of samples in the subset.
        batch_size: The size of the subset's batches. The measured loss does not depend on it, but
            memory does.
        split: The data loader from which the subset is drawn: ``train`` or ``val``.
        mode: ``eval``, or ``train`` for batch normalization with the statistics of each batch.
            Dropout is off in both.
        loss: The name of a method, which is called with the elements of the batch; or a function,
            which is called with the module and the elements. None selects the module's
            ``loss(batch)`` or ``loss(images, labels)``, recognized by the number and names of the
            parameters, or else the loss that ``training_step`` returns. The batch may be of any
            kind; nothing is logged, and the module's state is restored.
        seed: The seed of the subset and of the random vectors.

    Raises:
        ValueError: An argument is outside its range.
        MisconfigurationException: The strategy is tensor-parallel, FSDP (version 1) or DeepSpeed,
            FSDP2 shards weights in half precision, the data loader has no data set that can be
            indexed and ``split`` is ``val`` or parameters are sharded, ``training_step`` returns no
            loss or optimizes manually, the loss does not depend on a parameter, or processes would
            have to share batch statistics.

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
        split: Literal["train", "val"] = "train",
        mode: Literal["eval", "train"] = "eval",
        loss: str | Callable[..., Tensor] | None = None,
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
        if split not in ("train", "val"):
            raise ValueError(f"split={split!r}: expected 'train' or 'val'")
        if mode not in ("eval", "train"):
            raise ValueError(f"mode={mode!r}: expected 'eval' or 'train'")
        super().__init__()
        self.every_n_epochs = every_n_epochs
        self.max_share = max_share
        self.top_k = top_k
        self.trace_probes = trace_probes
        self.rho = rho
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.split = split
        self.mode = mode
        self.loss = loss
        self.seed = seed
        self._subset: list[SubsetBatch] = []
        self._is_collecting = False
        self._has_loss = False
        self._began = 0.0
        self._spent = 0.0
        self._last_took = 0.0
        self._is_sharded = False

    def check(self, trainer: Trainer) -> None:
        """Refuse an unsupported Trainer before data is prepared."""
        refuse_sharded(trainer, self, supports=["fsdp2"])

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse unsupported configurations, and start new curves for a new run."""
        self.check(trainer)
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fetch the subset."""
        self._has_loss = False
        self._began, self._spent, self._last_took = time.monotonic(), 0.0, 0.0
        self._refuse_module(trainer, pl_module)
        loader: Any = trainer.train_dataloader if self.split == "train" else trainer.val_dataloaders
        if isinstance(loader, list | tuple) and len(loader) == 1:
            loader = loader[0]
        self._is_sharded = has_shards(pl_module)
        share = data_share(trainer) if self._is_sharded else (0, 1)
        is_train = self.split == "train" and not self._is_sharded
        self._is_collecting = is_train and not has_fixed_subset(loader)
        if self._is_collecting:
            self._subset = []
            batch_loss(pl_module, self.loss)  # refuses a module whose loss is not known
            return
        self._subset = fixed_subset(
            trainer, loader, self.num_samples, self.batch_size, self.seed, share
        )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Compute the loss of the subset once, so that errors appear before the first step.

        Copies the run's first batches, if the loader has no data set that can be indexed.
        """
        if self._is_collecting:
            self._subset.append(collected_batch(batch))
        if not self._has_loss:  # not in on_train_start: that of the module runs after this one
            self._refuse_loss(pl_module)
            self._has_loss = True
        if not self._is_collecting:
            return
        if sum(part.num_samples for part in self._subset) >= self.num_samples:
            self._is_collecting = False

    def _refuse_loss(self, pl_module: LightningModule) -> None:
        if self.loss is None:
            warn_of_iterators(pl_module, "SharpnessMonitor runs the loss of training_step")
        loss, _, batches = self._problem(pl_module)
        # FSDP2 expects a backward pass after each pass with gradients.
        with torch.set_grad_enabled(not self._is_sharded), self._measuring(pl_module):
            try:
                value = loss(*batches[0])
            except MisconfigurationException:
                raise
            except Exception as error:
                raise MisconfigurationException(
                    f"SharpnessMonitor cannot compute the loss of {type(pl_module).__name__} for a "
                    f"batch of {self._subset[0].num_samples} samples ({type(error).__name__}: "
                    f"{' '.join(str(error).split())[:200]}): set batch_size= to that of the "
                    "training loader, or loss= to a function of the module and the batch"
                ) from error
        if not isinstance(value, Tensor) or value.ndim:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise MisconfigurationException(
                f"SharpnessMonitor needs a scalar loss of {type(pl_module).__name__}, got {shape}"
            )
        if self._is_sharded:
            ShardedHessian(pl_module, loss, batches)  # refuses parameters that are not sharded
        elif not value.requires_grad:
            raise MisconfigurationException(
                f"SharpnessMonitor cannot differentiate the loss of {type(pl_module).__name__}, "
                "which depends on no trainable parameter: set loss= to a function of the module "
                "and the batch"
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, if the epoch is due and the time limit allows it."""
        self._is_collecting = False
        if (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        elapsed = time.monotonic() - self._began
        # This measurement, and one more at the end of the run.
        needed = self._spent + 2 * self._last_took
        has_time = self.max_share >= 1 or needed <= self.max_share * elapsed
        self._record(trainer, pl_module, has_time)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure at the end of the run, and draw the curves."""
        self._is_collecting = False
        if self._subset and self.steps[-1:] != [trainer.global_step]:
            self._record(trainer, pl_module)
        self._subset = []
        log_picture(trainer, "sharpness", lambda: self._picture(trainer))

    def _refuse_module(self, trainer: Trainer, pl_module: LightningModule) -> None:
        dimension = sum(p.numel() for p in pl_module.parameters() if p.requires_grad)
        if dimension < self.top_k:
            raise ValueError(
                f"top_k={self.top_k}: expected at most the {dimension} trainable parameters of "
                f"{type(pl_module).__name__}"
            )
        half = (torch.float16, torch.bfloat16)
        if has_shards(pl_module) and any(p.dtype in half for p in pl_module.parameters()):
            raise MisconfigurationException(
                "SharpnessMonitor does not support FSDP2 with weights in half precision, whose "
                "gradients are too coarse for differences: set precision='bf16-mixed' or '32-true'"
            )
        synchronized = any(isinstance(module, SyncBatchNorm) for module in pl_module.modules())
        if self.mode == "train" and synchronized and trainer.world_size > 1:
            raise MisconfigurationException(
                "SharpnessMonitor(mode='train') measures on one process, but SyncBatchNorm waits "
                "for the statistics of all processes: set mode='eval'"
            )

    def _record(self, trainer: Trainer, pl_module: LightningModule, has_time: bool = True) -> None:
        measured: dict[str, float] | None = None
        if self._is_sharded:
            has_time = trainer.strategy.broadcast(has_time)  # every rank measures, or none
        if has_time and (trainer.is_global_zero or self._is_sharded):
            started = time.monotonic()
            measured = self._measured(pl_module)
            self._last_took = time.monotonic() - started
            self._spent += self._last_took
        # The first rank decides, because clocks differ between ranks.
        measured = trainer.strategy.broadcast(measured)
        if measured is None:
            return
        self._append(trainer.global_step, measured)
        log_measurement(trainer, {f"sharpness/{name}": value for name, value in measured.items()})

    def _measured(self, pl_module: LightningModule) -> dict[str, float]:
        loss, parameters, batches = self._problem(pl_module)
        options: dict[str, Any] = {
            name: getattr(self, name) for name in ("top_k", "trace_probes", "rho", "seed")
        }
        with self._measuring(pl_module):
            if self._is_sharded:
                return measure_sharded_sharpness(pl_module, loss, batches, **options)
            return measure_sharpness(loss, parameters, batches, **options)

    def _problem(
        self, pl_module: LightningModule
    ) -> tuple[Callable[..., Tensor], list[Tensor], list[tuple[Any, ...]]]:
        """Return the loss, its parameters, and pairs of (tensor with a row per sample, batch)."""
        loss, parameters = at_least_single_precision(pl_module, batch_loss(pl_module, self.loss))
        batches = [(torch.empty(part.num_samples, 0), part.batch) for part in self._subset]

        def measured(_: Tensor, batch: Any) -> Tensor:
            value = loss(batch)
            for parameter in parameters:  # training_step may have frozen one: it has no gradient
                parameter.requires_grad_(True)
            return value

        return measured, parameters, batches

    @contextmanager
    def _measuring(self, pl_module: LightningModule) -> Iterator[None]:
        with while_measuring(pl_module, self.seed):
            if self.mode == "train":
                for module in pl_module.modules():
                    if isinstance(module, _BatchNorm):
                        module.training = True
            yield

    def _picture(self, trainer: Trainer) -> Picture:
        marks: dict[str, int] = {}
        for callback in callbacks_of(trainer):
            step = getattr(callback, "first_active_step", None)
            if step is not None:
                name = type(callback).__name__
                marks[f"{name} ({step})" if name in marks else name] = step
        shown = {name: c for name, c in self.values.items() if name != "trace_standard_error"}
        return curve_picture(self.steps, shown, marks)
