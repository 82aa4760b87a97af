"""A look at a run around the moment at which its method changes."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class SwitchWatch(Callback):
    """Keeps the weights at ``switch`` and the training losses of the epochs beside it.

    Args:
        switch: fraction of the run's optimizer steps.
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
        """Find the step of the switch."""
        self._step = round(self.switch * trainer.estimated_stepping_batches)
        self._epoch_steps = int(trainer.num_training_batches)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the weights with which the switch begins."""
        if trainer.global_step == self._step:
            self.weights = {k: v.detach().clone() for k, v in pl_module.state_dict().items()}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the reported loss, which under SAM is that at the unperturbed weights."""
        self._losses[trainer.global_step - 1] = float(outputs["loss"])
