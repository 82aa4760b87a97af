"""Warm-up, then a cosine."""

import math
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class WarmupCosine(LRScheduler):
    """Linear warm-up, then half a cosine to a floor at the end of the run.

    At step t of T = ``total_steps`` the rate of each group is its initial rate times
    ``(t + 1) / (warmup * T)`` in the warm-up and ``floor + (1 - floor) * (1 + cos(pi * s)) / 2``
    after it, with s from 0 to 1. Advance it once per optimizer step.

    Source: Loshchilov and Hutter, arXiv 1608.03983, equation 5 without restarts.

    Args:
        optimizer: whose groups are scheduled, each relative to its own initial rate.
        total_steps: optimizer steps in the run; ``configure_optimizers`` fills it in.
        warmup: fraction of the run spent warming up, in [0, 1).
        floor: rate at the end, as a fraction of the initial rate, in [0, 1].

    Raises:
        ValueError: a fraction outside its range, or ``total_steps`` below 1.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int | None = None,
        warmup: float = 0.0,
        floor: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        if total_steps is None or total_steps < 1:
            raise ValueError(f"total_steps={total_steps}: give the run's length in optimizer steps")
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup={warmup}: expected a fraction of the run in [0, 1)")
        if not 0 <= floor <= 1:
            raise ValueError(f"floor={floor}: expected a fraction of the initial rate in [0, 1]")
        self.total_steps = total_steps
        self.warmup = warmup
        self.floor = floor
        super().__init__(optimizer, last_epoch)

    def multiplier(self, step: int) -> float:
        """The factor on the initial learning rate at optimizer step ``step`` (counted from 0)."""
        warmup_steps = self.warmup * self.total_steps
        if step < warmup_steps:
            return min(1.0, (step + 1) / warmup_steps)
        share = min(1.0, (step - warmup_steps) / (self.total_steps - warmup_steps))
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * share)) / 2

    def state_dict(self) -> dict[str, Any]:
        """How far the run is; its length and shape are those of the run that resumes."""
        kept = ("base_lrs", "last_epoch", "_step_count", "_last_lr")
        return {name: value for name, value in super().state_dict().items() if name in kept}

    def get_lr(self) -> list[float | Tensor]:
        """The learning rate of each parameter group at the current step."""
        factor = self.multiplier(self.last_epoch)
        return [base_lr * factor for base_lr in self.base_lrs]
