"""Weights batches by their number of targets, over accumulated and distributed batches."""

from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_plugins._lightning_compat.loops import steps_the_optimizer

Count = int | Tensor
"""A number of targets: an int if the shape determines it, else an int64 tensor on the device."""


class TargetWeighting:
    """Makes the gradient of an optimizer step the mean over all its targets.

    A step can consist of several batches, accumulated in one process or on several. Lightning
    averages their mean losses, which is the mean over all targets only if all batches have the same
    number of them; with masked targets a target in a batch with few others would count more. Here
    the loss of a batch is multiplied by its targets relative to the size of the first batch of the
    step, and the gradient of the step by that size relative to the mean number of targets. Both
    factors are exactly 1 for full windows without masked targets.
    """

    def __init__(self) -> None:
        self._reference: Count | None = None
        self._total: Count = 0

    def count(self, trainer: Trainer, targets: Tensor, is_masked: bool) -> None:
        """Count the targets ``(batch, length)`` of the next batch of this process.

        Args:
            trainer: The Trainer of the run.
            targets: Next tokens; negative if they are not targets.
            is_masked: Whether some tokens may not be targets.
        """
        if self._reference is None:
            self._reference = _reduced(trainer, targets.numel(), "max", targets.device)
        self._total = self._total + num_targets(targets, is_masked)

    def weight(self, targets: Tensor, is_masked: bool) -> float | Tensor:
        """Return the factor of the mean loss of a batch; 1 outside of a run."""
        if self._reference is None:
            return 1.0
        return num_targets(targets, is_masked) / self._reference

    def scale_gradients(self, trainer: Trainer, parameters: Iterable[Tensor]) -> None:
        """Divide the gradients by the mean number of targets of the step's batches."""
        if self._reference is None:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        device = gradients[0].device if gradients else torch.device("cpu")
        total = _reduced(trainer, self._total, "sum", device)
        expected = self._reference * (trainer.accumulate_grad_batches * num_ranks(trainer))
        if isinstance(total, Tensor):
            factor: float | Tensor = expected / total.clamp(min=1)
        else:
            factor = expected / max(total, 1)
        if isinstance(factor, Tensor) or factor != 1:
            for gradient in gradients:
                # A DTensor does not accept a factor that is a tensor without a mesh.
                gradient = gradient.to_local() if hasattr(gradient, "to_local") else gradient
                gradient.mul_(factor)

    def end_batch(self, trainer: Trainer) -> None:
        """Start a new count if the batch ended an optimizer step."""
        if steps_the_optimizer(trainer):
            self._reference, self._total = None, 0


def num_targets(targets: Tensor, is_masked: bool) -> Count:
    """Count the targets; does not synchronize with the host."""
    return (targets >= 0).sum() if is_masked else targets.numel()


def num_ranks(trainer: Trainer) -> int:
    """Return the number of processes whose gradients the strategy averages."""
    # Imported here, because most runs do not load the strategies.
    from lightning_plugins.strategies.process_per_agent import ProcessPerAgentStrategy

    strategy = trainer.strategy
    if isinstance(strategy, ProcessPerAgentStrategy):
        return strategy.processes_per_agent
    return trainer.world_size


def _reduced(trainer: Trainer, count: Count, operation: str, device: torch.device) -> Count:
    if num_ranks(trainer) == 1:
        return count
    own: Any = torch.as_tensor(count, dtype=torch.int64, device=device).clone()
    inside = getattr(getattr(trainer.strategy, "peers", None), "inside", None)
    if inside is not None:
        return inside.reduce(own, operation)
    return trainer.strategy.reduce(own, reduce_op=operation)
