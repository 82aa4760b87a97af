"""Callbacks that record values of a run for a claim."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class SwitchWatch(Callback):
    """Records the weights at ``switch`` and the training loss of every step.

    Args:
        switch: Fraction of the run's optimizer steps.
    """

    def __init__(self, switch: float) -> None:
        self.switch = switch
        self.weights: dict[str, torch.Tensor] = {}
        self._losses: dict[int, float] = {}

    @property
    def rise(self) -> float:
        """Mean loss in the epoch after the switch minus that in the epoch before."""
        before, after = (
            [self._losses[step] for step in range(self._step + start, self._step + end)]
            for start, end in ((-self._epoch_steps, 0), (0, self._epoch_steps))
        )
        return sum(after) / len(after) - sum(before) / len(before)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the step of the switch."""
        self._step = round(self.switch * trainer.estimated_stepping_batches)
        self._epoch_steps = int(trainer.num_training_batches)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Copy the weights just before the switch."""
        if trainer.global_step == self._step:
            self.weights = {k: v.detach().clone() for k, v in pl_module.state_dict().items()}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the reported loss, which under SAM is the loss at the unperturbed weights."""
        self._losses[trainer.global_step - 1] = float(outputs["loss"])


class ValidationWatch(Callback):
    """Records a metric and the optimizer step at the end of each validation.

    Args:
        metric: A logged name, such as ``val/loss``.
    """

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.steps: list[int] = []
        self.values: list[float] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the value, except in the sanity check."""
        if not trainer.sanity_checking:
            self.steps.append(trainer.global_step)
            self.values.append(float(trainer.callback_metrics[self.metric]))
