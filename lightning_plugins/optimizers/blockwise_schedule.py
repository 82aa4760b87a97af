"""Warm-up and decay for groups with learning rates of their own that end at a common floor."""

import math
from typing import Any, Literal, get_args

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

Shape = Literal["cosine", "wsd_thirds"]


class BlockwiseSchedule(LRScheduler):
    """The schedule of Blockwise LR: each block from its own peak to one floor for all.

    With a block's peak m·η, m its multiplier and η the rate of multiplier 1, at iteration i of T,
    which is the optimizer's step i - 1 counted from 0:

    - ``cosine``: linear warm-up over w steps, then half a cosine from the peak to ``floor`` at T.
    - ``wsd_thirds``: linear warm-up and the peak up to T/3; a line from the peak to η up to 2T/3;
      from there all blocks alike on a line from η to ``floor``.

    w is ``warmup``·T; with ``stretch_warmup`` it is m·``warmup``·T, as in the authors' code, so
    that all blocks warm up at one slope. On an optimizer without blocks every m is 1, which gives
    the baseline with the same floor. Advance it once per optimizer step.

    Source: Wang et al., arXiv 2502.19002, and the authors' released code (minimum rate common to
    all blocks, warm-up scaled by the multiplier, thirds under WSD), which begins with an iteration
    0 at rate 0 that is left out here.

    Args:
        optimizer: a ``Blockwise`` optimizer, or any other.
        total_steps: optimizer steps in the run; ``configure_optimizers`` fills it in.
        shape: ``cosine`` or ``wsd_thirds``.
        warmup: fraction of the run, in [0, 1).
        floor: learning rate at the end, absolute and common to all groups, >= 0.
        stretch_warmup: multiply the warm-up of a block by its multiplier.

    Raises:
        ValueError: an argument out of range, a floor above η, a warm-up that a multiplier stretches
            beyond the part in which it must end (the run, or its first third).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int | None = None,
        shape: Shape = "cosine",
        warmup: float = 0.0,
        floor: float = 0.0,
        stretch_warmup: bool = False,
        last_epoch: int = -1,
    ) -> None:
        if total_steps is None or total_steps < 1:
            raise ValueError(f"total_steps={total_steps}: give the run's length in optimizer steps")
        if shape not in get_args(Shape):
            raise ValueError(f"shape={shape!r}: expected {' or '.join(get_args(Shape))}")
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup={warmup}: expected a fraction of the run in [0, 1)")
        if not (math.isfinite(floor) and floor >= 0):
            raise ValueError(f"floor={floor}: expected a learning rate >= 0")
        self.total_steps = total_steps
        self.shape = shape
        self.warmup = warmup
        self.floor = floor
        self.stretch_warmup = stretch_warmup
        peaks = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
        self._common_peak = _rate_of_multiplier_one(optimizer, peaks)
        self._check(peaks)
        super().__init__(optimizer, last_epoch)

    def rate(self, step: int, peak: float) -> float:
        """The learning rate at optimizer step ``step``, from 0, of a group with this peak."""
        total = self.total_steps
        iteration = min(step + 1, total)
        warmup_steps = self._warmup_share(peak) * total
        if iteration <= warmup_steps:
            return peak * iteration / warmup_steps
        if self.shape == "cosine":
            share = (iteration - warmup_steps) / (total - warmup_steps)
            return self.floor + (peak - self.floor) * (1 + math.cos(math.pi * share)) / 2
        third = total / 3
        if iteration <= third:
            return peak
        if iteration <= 2 * third:
            return peak + (self._common_peak - peak) * (iteration - third) / third
        share = (iteration - 2 * third) / third
        return self._common_peak + (self.floor - self._common_peak) * share

    def state_dict(self) -> dict[str, Any]:
        """How far the run is; peaks, length and shape are those of the run that resumes."""
        kept = ("last_epoch", "_step_count")
        return {name: value for name, value in super().state_dict().items() if name in kept}

    def get_lr(self) -> list[float | Tensor]:
        """The learning rate of each parameter group at the current step."""
        return [self.rate(self.last_epoch, float(peak)) for peak in self.base_lrs]

    def _warmup_share(self, peak: float) -> float:
        return self.warmup * (peak / self._common_peak if self.stretch_warmup else 1.0)

    def _check(self, peaks: list[float]) -> None:
        if self.floor > self._common_peak:
            raise ValueError(
                f"floor={self.floor}: above the optimizer's lr={self._common_peak}, so that rates "
                "would rise at the end; give an absolute learning rate below it"
            )
        limit = 1.0 if self.shape == "cosine" else 1 / 3
        longest = self._warmup_share(max(peaks))
        if longest >= limit:
            raise ValueError(
                f"warmup={self.warmup}: stretched by multiplier {max(peaks) / self._common_peak:g} "
                f"to {longest:g} of the run, where it must end before {limit:.3g}; reduce it or "
                "set stretch_warmup to false"
            )


def _rate_of_multiplier_one(optimizer: Optimizer, peaks: list[float]) -> float:
    """``lr`` of a Blockwise optimizer; else the smallest peak of the groups."""
    named_blocks = all("multiplier" in group for group in optimizer.param_groups)
    if named_blocks:
        return peaks[0] / float(optimizer.param_groups[0]["multiplier"])
    return min(peaks)
