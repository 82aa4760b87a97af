"""The training closure of a SAM step: first pass, perturbation, second pass, restored weights."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_plugins._lightning_compat.closures import Passes, passes_of
from lightning_plugins._lightning_compat.loops import steps_the_optimizer
from lightning_plugins._lightning_compat.processes import no_gradient_synchronization
from lightning_plugins.callbacks.extra_passes import (
    callbacks_silenced,
    no_side_effects,
    warn_of_iterators,
)
from lightning_plugins.nn.module_state import Snapshot
from lightning_plugins.nn.random_state import RandomState
from lightning_plugins.nn.sharpness_aware import WeightPerturbation


class SAMClosures:
    """Turns the training closures of one run into closures of SAM.

    Args:
        trainer: The Trainer of the run.
        module: The module whose ``training_step`` the closures call.
        perturbation: The perturbation of the weights.
        local: Whether the first pass is not synchronized between processes.
        by_micro_batch: Whether each micro-batch of an accumulation window is perturbed separately.
    """

    def __init__(
        self,
        trainer: Trainer,
        module: LightningModule,
        perturbation: WeightPerturbation,
        local: bool,
        by_micro_batch: bool,
    ) -> None:
        self.trainer = trainer
        self.module = module
        self.perturbation = perturbation
        self.local = local
        self.by_micro_batch = by_micro_batch
        self._window: list[_MicroBatch] = []
        self._measured: dict[str, Tensor] | None = None
        self._is_first = True
        self._batch: Any = None
        self._copies_batches: bool | None = None  # unknown before the first one

    def wrap(self, closure: Any, batch: Any) -> Any:
        """Return a closure with SAM's two passes; a closure without backward is not changed."""
        passes = passes_of(closure)
        return closure if passes.skips_backward else _SAMClosure(self, passes, batch)

    def take_measurements(self) -> dict[str, Tensor] | None:
        """Return ``gradient_norm`` and ``loss_gap`` of a new SAM step, or None."""
        measured, self._measured = self._measured, None
        return measured

    def run(self, passes: Passes, batch: Any) -> None:
        """Run one batch, which may be one micro-batch of an accumulation window."""
        self._batch = batch
        if passes.starts_accumulation:
            self._window = []
        if self._is_first:
            self._is_first = False
            warn_of_iterators(self.module, "LateSAM runs training_step twice")
        steps = steps_the_optimizer(self.trainer)
        if self.by_micro_batch:
            self._micro_batch_step(passes, steps)
        elif steps:
            self._exact_step(passes)
        else:
            self._first_pass(passes)

    def _exact_step(self, passes: Passes) -> None:
        """Run a window's last first pass, then all its batches at the perturbed weights."""
        with self._unsynchronized_if(self.local):
            self._first_pass(passes)
        if not self._window:
            return
        window, self._window = self._window, []
        with self._perturbed() as norm:
            self.perturbation.optimizer.zero_grad()
            with self._unsynchronized_if(True):
                for micro_batch in window[:-1]:
                    micro_batch.run_again()
            window[-1].run_again()
        self._measure(norm, window)

    def _micro_batch_step(self, passes: Passes, steps: bool) -> None:
        """Run both passes of one batch and add its SAM gradient to those of the window."""
        parameters = self._parameters()
        so_far = [None if passes.starts_accumulation else p.grad for p in parameters]
        for parameter in parameters:
            parameter.grad = None
        before = len(self._window)
        with self._unsynchronized_if(self.local or not steps):
            self._first_pass(passes)
        if len(self._window) == before:  # training_step returned no loss
            for parameter, gradient in zip(parameters, so_far, strict=True):
                parameter.grad = gradient
            return
        with self._perturbed() as norm:
            # Assigned before the last backward, so that DDP averages the whole sum.
            for parameter, gradient in zip(parameters, so_far, strict=True):
                parameter.grad = gradient
            self._window[-1].run_again()
        if steps:
            window, self._window = self._window, []
            self._measure(norm, window)

    def _first_pass(self, passes: Passes) -> None:
        """Run Lightning's passes of one batch, and store what is needed to repeat them."""
        random_state = RandomState.capture(self._cuda_devices())
        batch = Snapshot([self._batch], with_tensors=self._copies_batches is not False)
        # Callbacks see each backward pass once, and the gradient that the optimizer receives.
        with callbacks_silenced(self.trainer, "on_after_backward"):
            loss = passes.run()
        if self._copies_batches is None:
            self._copies_batches = batch.has_changed_tensors()
        if loss is not None:
            self._window.append(_MicroBatch(passes, random_state, batch))

    @contextmanager
    def _perturbed(self) -> Iterator[Tensor]:
        """Perturb the weights for a second pass without side effects; yields the norm."""
        module = self.module
        random_state = RandomState.capture(self._cuda_devices())
        try:
            with (
                callbacks_silenced(self.trainer, "on_before_backward"),
                no_side_effects(module, leave=self.perturbation.parameters_with_gradient()),
                _gradients_kept(module, except_of=self._parameters()),
            ):
                scaler = getattr(self.trainer.precision_plugin, "scaler", None)
                scale = 1.0 if scaler is None else scaler.get_scale()
                yield self.perturbation.perturb(scale, scaler is not None) / scale
        finally:
            self.perturbation.restore()
            random_state.restore()

    def _measure(self, norm: Tensor, window: "list[_MicroBatch]") -> None:
        first, second = (
            torch.stack([getattr(micro_batch.passes, name) for micro_batch in window]).sum()
            for name in ("loss", "second_loss")
        )
        self._measured = {"gradient_norm": norm, "loss_gap": second - first}

    def _parameters(self) -> list[Tensor]:
        groups = self.perturbation.optimizer.param_groups
        return [parameter for group in groups for parameter in group["params"]]

    def _cuda_devices(self) -> tuple[int, ...]:
        device = self.module.device
        return (device.index,) if device.type == "cuda" else ()

    def _unsynchronized_if(self, condition: bool) -> AbstractContextManager[None]:
        return no_gradient_synchronization(self.trainer) if condition else nullcontext()


@contextmanager
def _gradients_kept(module: LightningModule, except_of: list[Tensor]) -> Iterator[None]:
    """Keep the gradients of the parameters that are not the optimizer's."""
    stepped = set(map(id, except_of))
    kept = [(p, p.grad) for p in module.parameters() if p.grad is not None and id(p) not in stepped]
    for parameter, _ in kept:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in kept:
            parameter.grad = gradient


@dataclass(frozen=True)
class _MicroBatch:
    """One batch of an accumulation window, and the states before its first pass."""

    passes: Passes
    random_state: RandomState
    batch: Snapshot

    def run_again(self) -> None:
        self.batch.restore()
        self.random_state.restore()
        self.passes.run_again()


class _SAMClosure:
    """Replaces Lightning's closure and returns the results of the first pass."""

    def __init__(self, closures: SAMClosures, passes: Passes, batch: Any) -> None:
        self._closures = closures
        self._passes = passes
        self._batch = batch

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor | None:
        with torch.enable_grad():
            self._closures.run(self._passes, self._batch)
        return self._passes.loss

    def consume_result(self) -> Any:
        return self._passes.consume_result()
