"""Sharpness-Aware Minimization (SAM), for the whole run or only its last part."""

import inspect
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_plugins._lightning_compat import (
    Passes,
    metrics_untouched,
    no_gradient_synchronization,
    steps_the_optimizer,
    wrap_closures,
)
from lightning_plugins.nn.buffers import buffers_untouched
from lightning_plugins.nn.random_state import RandomState
from lightning_plugins.nn.sharpness_aware import WeightPerturbation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

_REFUSED_STRATEGIES = ("FSDP", "DeepSpeed", "ModelParallel", "XLA")


class LateSAM(Callback):
    """Sharpness-Aware Minimization (SAM) from ``start`` to the end of the run.

    ``start=0`` is plain SAM. Zhou et al. (arXiv 2410.10373) find that a few epochs of SAM at the
    end of training do nearly what SAM in the whole run does, at a fraction of its second passes.

    From ``start`` on, each optimizer step first computes the gradient as always, moves the weights
    to the worst point within ``rho`` (Foret et al., arXiv 2010.01412), computes the gradient there
    on the same batches with the same dropout masks, puts the weights back bit for bit, and hands
    that second gradient to clipping and to the optimizer. Before ``start`` the run is, bit for
    bit, the run without the callback. Any optimizer with automatic optimization works; gradient
    accumulation perturbs once with the accumulated gradient and repeats all micro-batches.

    In the second pass nothing is logged, and torchmetrics, BatchNorm statistics and other buffers
    are as the first pass left them: what is reported is the loss at the unperturbed weights. Your
    own bookkeeping inside ``training_step`` does run twice.

    Logs, while active: ``sam/gradient_norm`` and ``sam/loss_gap`` (the loss at the perturbed
    weights minus the loss at the weights, mean over the micro-batches).

    Args:
        start: when SAM begins, counted in ``unit``.
        unit: ``fraction`` of the run's optimizer steps, ``epoch``, or optimizer ``step``.
        rho: radius of the neighbourhood in the L2 norm of all weights, > 0. The common values are
            0.05 to 0.2, and about 10 times that when ``adaptive``.
        adaptive: measure the radius relative to each weight's size (ASAM, arXiv 2102.11600).
        local: with several processes, perturb each with its own gradient (m-sharpness; no
            communication in the first pass) or with the averaged one.

    Raises:
        ValueError: an argument outside its range, or a ``fraction`` of a run without an end.
        MisconfigurationException: manual optimization, a strategy that shards the parameters,
            LBFGS, a ``dataloader_iter`` training step, or an active LateSAM beside another.

    Example::

        trainer = Trainer(max_epochs=200, callbacks=[LateSAM(start=0.875, rho=0.05)])
    """

    def __init__(
        self,
        start: float = 0.75,
        unit: Literal["fraction", "epoch", "step"] = "fraction",
        rho: float = 0.05,
        adaptive: bool = False,
        local: bool = True,
    ) -> None:
        if unit not in ("fraction", "epoch", "step"):
            raise ValueError(f"unit={unit!r}: expected 'fraction', 'epoch' or 'step'")
        if not start >= 0:
            raise ValueError(f"start={start}: expected 0 or more")
        if unit == "fraction" and start >= 1:
            raise ValueError(
                f"start={start}: expected a fraction of the run below 1; "
                f"for epochs or steps set unit='epoch' or unit='step'"
            )
        if not 0 < rho < float("inf"):
            raise ValueError(f"rho={rho}: expected a positive finite radius, for example 0.05")
        self.start = start
        self.unit = unit
        self.rho = rho
        self.adaptive = adaptive
        self.local = local
        self.sam_steps = 0
        self._start_step: int | None = None
        self._remove_wrapper: Any = None
        self._accumulated: list[_MicroBatch] = []
        self._to_log: dict[str, Tensor] = {}

    def check(self, trainer: Trainer) -> None:
        """Refuse a Trainer that this callback cannot work in, before anything is prepared."""
        strategy = type(trainer.strategy).__name__
        if strategy.startswith(_REFUSED_STRATEGIES):
            raise MisconfigurationException(
                f"LateSAM does not support {strategy}: it needs whole parameters and gradients "
                "on each rank; use strategy='ddp' or a single device"
            )
        others = [c for c in trainer.callbacks if isinstance(c, LateSAM) and c is not self]
        if others:
            raise MisconfigurationException(
                "two LateSAM callbacks would both perturb the weights: keep one"
            )
        if self.unit == "fraction" and trainer.max_epochs == -1 and trainer.max_steps == -1:
            raise ValueError(
                f"start={self.start} is a fraction of a run without an end: set "
                "trainer.max_epochs or trainer.max_steps, or use unit='epoch' or unit='step'"
            )
        limit = {"epoch": trainer.max_epochs, "step": trainer.max_steps}.get(self.unit)
        if limit is not None and limit >= 0 and self.start >= limit:
            raise ValueError(
                f"start={self.start}: the run ends at {self.unit} {limit}, so SAM would never "
                f"begin; choose a start below it"
            )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot work, while nothing has been trained."""
        if stage != "fit":
            return
        self.check(trainer)
        if not pl_module.automatic_optimization:
            raise MisconfigurationException(
                f"LateSAM needs automatic optimization, which {type(pl_module).__name__} turns "
                "off; in manual optimization use lightning_plugins.nn.sharpness_aware"
            )
        if "dataloader_iter" in _argument_names(pl_module.training_step):
            raise MisconfigurationException(
                "LateSAM cannot repeat a training_step that takes dataloader_iter: "
                "it would fetch another batch; take batch instead"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the first SAM step and take the place where training closures are built."""
        optimizer = trainer.optimizers[0]
        if isinstance(optimizer, torch.optim.LBFGS):
            raise MisconfigurationException(
                "LateSAM cannot work with LBFGS, which evaluates its closure several times a step"
            )
        self._start_step = self._first_step(trainer)
        self._perturbation = WeightPerturbation(optimizer, self.rho, self.adaptive)
        self._accumulated = []
        self._remove_wrapper = wrap_closures(trainer, self._wrap)
        self._trainer, self._module = trainer, pl_module

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Log what the last SAM step measured."""
        if self._to_log:
            pl_module.log_dict(self._to_log)
            self._to_log = {}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn if SAM never began."""
        self._detach()
        if self.sam_steps == 0:
            rank_zero_warn(
                f"LateSAM(start={self.start}, unit={self.unit!r}) never became active: "
                f"the run ended after {trainer.global_step} optimizer steps"
            )

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave nothing behind in a Trainer that is used again."""
        self._detach()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave nothing behind in a Trainer that is used again."""
        self._detach()

    def state_dict(self) -> dict[str, Any]:
        """How many SAM steps were taken; everything else follows from the step counter."""
        return {"sam_steps": self.sam_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue counting."""
        self.sam_steps = state_dict["sam_steps"]

    @property
    def active(self) -> bool:
        """Whether the next optimizer step is a SAM step."""
        return self._start_step is not None and self._trainer.global_step >= self._start_step

    def _first_step(self, trainer: Trainer) -> int:
        if self.unit == "step":
            return round(self.start)
        if self.unit == "fraction":
            return round(self.start * trainer.estimated_stepping_batches)
        steps_an_epoch = -(-trainer.num_training_batches // trainer.accumulate_grad_batches)
        return round(self.start * steps_an_epoch)

    def _wrap(self, closure: Any, kwargs: dict[str, Any], batch_idx: int) -> Any:
        if not self.active:
            return closure
        passes = Passes(closure)
        if passes.skips_backward:
            return closure
        return _SAMClosure(self, passes)

    def _detach(self) -> None:
        self._accumulated = []
        if self._remove_wrapper is not None:
            self._remove_wrapper()
            self._remove_wrapper = None

    # What follows runs inside the training closure of one batch.

    def _first_pass(self, passes: Passes) -> None:
        """The stock passes of one micro-batch; keeps what is needed to repeat them."""
        if passes.starts_accumulation:
            self._accumulated = []
        random_state = RandomState.capture(_cuda_devices(self._module))
        loss = passes.run()
        if loss is not None:
            self._accumulated.append(_MicroBatch(passes, random_state, loss))

    def _sam_step(self, passes: Passes) -> None:
        """The first pass of the stepping batch, then all micro-batches at perturbed weights."""
        with no_gradient_synchronization(self._trainer) if self.local else nullcontext():
            self._first_pass(passes)
        if not self._accumulated:
            return
        micro_batches, self._accumulated = self._accumulated, []
        norm = self._perturbation.gradient_norm()
        # With a gradient scaler an overflow is routine: leave it for the scaler to find and skip.
        if getattr(self._trainer.precision_plugin, "scaler", None) and not torch.isfinite(norm):
            return
        after_first_pass = RandomState.capture(_cuda_devices(self._module))
        try:
            with self._without_a_trace():
                self._perturbation.perturb(norm)
                self._perturbation.optimizer.zero_grad()
                second_losses = self._second_passes(micro_batches)
        finally:
            self._perturbation.restore()
            after_first_pass.restore()
        self.sam_steps += 1
        first_losses = [micro_batch.loss for micro_batch in micro_batches]
        gap = torch.stack(second_losses).sum() - torch.stack(first_losses).sum()
        self._to_log = {"sam/gradient_norm": norm, "sam/loss_gap": gap}

    @contextmanager
    def _without_a_trace(self) -> "Iterator[None]":
        module = self._module
        with buffers_untouched(module), metrics_untouched(module), _silent(module):
            yield

    def _second_passes(self, micro_batches: list["_MicroBatch"]) -> list["Tensor"]:
        losses = []
        *unsynchronized, last = micro_batches
        with no_gradient_synchronization(self._trainer):
            for micro_batch in unsynchronized:
                micro_batch.random_state.restore()
                losses.append(micro_batch.passes.run_again())
        last.random_state.restore()
        losses.append(last.passes.run_again())
        return losses


@dataclass(frozen=True)
class _MicroBatch:
    """One batch of an accumulation window, as its first pass found and left it."""

    passes: Passes
    random_state: RandomState
    loss: "Tensor"


class _SAMClosure:
    """Stands where Lightning's closure stood, and reports what its first pass reported."""

    def __init__(self, callback: LateSAM, passes: Passes) -> None:
        self._callback = callback
        self._passes = passes

    def __call__(self, *args: Any, **kwargs: Any) -> "Tensor | None":
        with torch.enable_grad():
            if steps_the_optimizer(self._callback._trainer):
                self._callback._sam_step(self._passes)
            else:
                self._callback._first_pass(self._passes)
        return self._passes.loss

    def consume_result(self) -> Any:
        return self._passes.consume_result()


@contextmanager
def _silent(module: LightningModule) -> "Iterator[None]":
    """Make ``self.log`` and ``self.log_dict`` of the module do nothing inside the block."""
    module.__dict__["log"] = lambda *args, **kwargs: None
    try:
        yield
    finally:
        del module.__dict__["log"]


def _cuda_devices(module: LightningModule) -> tuple[int, ...]:
    return (module.device.index,) if module.device.type == "cuda" else ()


def _argument_names(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)
