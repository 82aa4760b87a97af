"""Learning-rate schedules over the whole run, advanced once per optimizer step."""

import math
from typing import Any, ClassVar, Literal, get_args

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

Shape = Literal["cosine", "wsd_thirds"]


class WholeRunSchedule(LRScheduler):
    """Base of schedules that know the length of the run in optimizer steps.

    A subclass sets its own arguments, then calls this constructor, and implements :meth:`rate`. Its
    state is the progress only: a resumed run keeps its own length and shape.

    Args:
        optimizer: The optimizer whose parameter groups are scheduled.
        total_steps: Optimizer steps in the run; ``configure_optimizers`` fills it in.
        warmup: Warm-up as a fraction of the run, in [0, 1).
        last_epoch: The last step taken, as in PyTorch's schedules.

    Raises:
        ValueError: ``warmup`` is out of range, or ``total_steps`` is missing or below 1.
    """

    _state_keys: ClassVar[tuple[str, ...]] = ("base_lrs", "last_epoch", "_step_count", "_last_lr")

    def __init__(
        self, optimizer: Optimizer, total_steps: int | None, warmup: float, last_epoch: int
    ) -> None:
        self.total_steps = _checked_run(total_steps, warmup)
        self.warmup = warmup
        super().__init__(optimizer, last_epoch)

    def rate(self, step: int, peak: float | Tensor) -> float | Tensor:
        """Return the learning rate at optimizer step ``step`` (from 0) for an initial rate."""
        raise NotImplementedError

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rate of each parameter group at the current step."""
        return [self.rate(self.last_epoch, peak) for peak in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Return the progress of the run, without its length and shape."""
        return {
            key: value for key, value in super().state_dict().items() if key in self._state_keys
        }


class WarmupCosine(WholeRunSchedule):
    """Linear warm-up, then half a cosine to a floor at the end of the run.

    At step t of T = ``total_steps``, the rate of each group is its initial rate times
    ``(t + 1) / (warmup * T)`` during the warm-up. After it, the factor is
    ``floor + (1 - floor) * (1 + cos(pi * s)) / 2``, with s rising from 0 to 1. Advance it once per
    optimizer step.

    Source: Loshchilov and Hutter, arXiv 1608.03983, equation 5 without restarts.

    Args:
        optimizer: The optimizer; each group is scheduled relative to its own initial rate.
        total_steps: Optimizer steps in the run; ``configure_optimizers`` fills it in.
        warmup: Warm-up as a fraction of the run, in [0, 1).
        floor: Rate at the end as a fraction of the initial rate, in [0, 1].
        last_epoch: The last step taken, as in PyTorch's schedules.

    Raises:
        ValueError: A fraction is out of range, or ``total_steps`` is below 1.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int | None = None,
        warmup: float = 0.0,
        floor: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        self.floor = _checked_fraction_floor(floor)
        super().__init__(optimizer, total_steps, warmup, last_epoch)

    def multiplier(self, step: int) -> float:
        """Return the factor on the initial learning rate at optimizer step ``step`` (from 0)."""
        warmup_steps = self.warmup * self.total_steps
        if step < warmup_steps:
            return min(1.0, (step + 1) / warmup_steps)
        share = min(1.0, (step - warmup_steps) / (self.total_steps - warmup_steps))
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * share)) / 2

    def rate(self, step: int, peak: float | Tensor) -> float | Tensor:
        """Return the learning rate at optimizer step ``step`` (from 0) for an initial rate."""
        return peak * self.multiplier(step)


class WarmupStableDecay(WholeRunSchedule):
    """Linear warm-up, a constant learning rate, then a linear decay over the last part of the run.

    At step t of T = ``total_steps``, the rate of each group is its initial rate times
    ``min(1, (t + 1) / (warmup * T))`` before the decay, and falls linearly from 1 to ``floor`` over
    the last ``decay * T`` steps. Advance it once per optimizer step.

    Source: the trapezoidal ("WSD") schedule of Hu et al., MiniCPM, arXiv 2404.06395, section 4.

    Args:
        optimizer: The optimizer; each group is scheduled relative to its own initial rate.
        total_steps: Optimizer steps in the run; ``configure_optimizers`` fills it in.
        warmup: Warm-up as a fraction of the run, in [0, 1).
        decay: Decay as a fraction of the run, in [0, 1 - warmup].
        floor: Rate at the end as a fraction of the initial rate, in [0, 1].
        last_epoch: The last step taken, as in PyTorch's schedules.

    Raises:
        ValueError: A fraction is out of range, or ``total_steps`` is below 1.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int | None = None,
        warmup: float = 0.0,
        decay: float = 0.2,
        floor: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        _checked_run(total_steps, warmup)
        if not 0 <= decay <= 1 - warmup:
            raise ValueError(f"decay={decay}: expected a fraction in [0, 1 - warmup={warmup}]")
        self.decay = decay
        self.floor = _checked_fraction_floor(floor)
        super().__init__(optimizer, total_steps, warmup, last_epoch)

    def multiplier(self, step: int) -> float:
        """Return the factor on the initial learning rate at optimizer step ``step`` (from 0)."""
        warmup_steps = self.warmup * self.total_steps
        if step < warmup_steps:
            return min(1.0, (step + 1) / warmup_steps)
        decay_steps = self.decay * self.total_steps
        steps_left = self.total_steps - step
        if steps_left >= decay_steps:
            return 1.0
        return self.floor + (1 - self.floor) * max(steps_left, 0) / decay_steps

    def rate(self, step: int, peak: float | Tensor) -> float | Tensor:
        """Return the learning rate at optimizer step ``step`` (from 0) for an initial rate."""
        return peak * self.multiplier(step)


class BlockwiseSchedule(WholeRunSchedule):
    """The schedule of Blockwise LR: each block decays from its own peak to one common floor.

    The peak of a block is m·η, where m is its multiplier and η the rate of multiplier 1. At
    iteration i of T, which is the optimizer's step i - 1 counted from 0:

    - ``cosine``: linear warm-up over w steps, then half a cosine from the peak to ``floor`` at T.
    - ``wsd_thirds``: linear warm-up and the peak up to T/3; a linear decay from the peak to η up to
      2T/3; then the same linear decay from η to ``floor`` for all blocks.

    w is ``warmup``·T; with ``stretch_warmup`` it is m·``warmup``·T, as in the authors' code, so
    that the rates of all blocks rise with the same slope. For an optimizer without blocks every m
    is 1, which gives the baseline with the same floor. Advance it once per optimizer step.

    Source: Wang et al., arXiv 2502.19002, and the authors' released code (one minimum rate for all
    blocks, warm-up scaled by the multiplier, thirds under WSD). Their code starts with an iteration
    0 at rate 0, which is omitted here.

    Args:
        optimizer: A ``Blockwise`` optimizer, or any other.
        total_steps: Optimizer steps in the run; ``configure_optimizers`` fills it in.
        shape: ``cosine`` or ``wsd_thirds``.
        warmup: Warm-up as a fraction of the run, in [0, 1).
        floor: Absolute learning rate at the end, common to all groups, >= 0.
        stretch_warmup: Multiply the warm-up of a block by its multiplier.
        last_epoch: The last step taken, as in PyTorch's schedules.

    Raises:
        ValueError: An argument is out of range, the floor is above η, or a multiplier stretches the
            warm-up beyond the part in which it must end (the run, or its first third).
    """

    # The peaks are those of the resumed run, too.
    _state_keys = ("last_epoch", "_step_count")

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
        _checked_run(total_steps, warmup)
        if shape not in get_args(Shape):
            raise ValueError(f"shape={shape!r}: expected {' or '.join(get_args(Shape))}")
        if not (math.isfinite(floor) and floor >= 0):
            raise ValueError(f"floor={floor}: expected a learning rate >= 0")
        self.shape = shape
        self.floor = floor
        self.stretch_warmup = stretch_warmup
        peaks = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
        self._common_peak = _rate_of_multiplier_one(optimizer, peaks)
        if floor > self._common_peak:
            raise ValueError(
                f"floor={floor} is above the optimizer's lr={self._common_peak}, so the rates "
                "would rise at the end: set an absolute learning rate below it"
            )
        limit = 1.0 if shape == "cosine" else 1 / 3
        longest = self._warmup_fraction(warmup, max(peaks))
        if longest >= limit:
            raise ValueError(
                f"warmup={warmup}: multiplier {max(peaks) / self._common_peak:g} stretches it to "
                f"{longest:g} of the run, but it must end before {limit:.3g}: reduce it or set "
                "stretch_warmup to false"
            )
        super().__init__(optimizer, total_steps, warmup, last_epoch)

    def rate(self, step: int, peak: float | Tensor) -> float:
        """Return the learning rate at optimizer step ``step`` (from 0) of a group with a peak."""
        peak = float(peak)
        total = self.total_steps
        iteration = min(step + 1, total)
        warmup_steps = self._warmup_fraction(self.warmup, peak) * total
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

    def _warmup_fraction(self, warmup: float, peak: float) -> float:
        return warmup * (peak / self._common_peak if self.stretch_warmup else 1.0)


def _checked_run(total_steps: int | None, warmup: float) -> int:
    if total_steps is None or total_steps < 1:
        raise ValueError(f"total_steps={total_steps}: set the run's length in optimizer steps")
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup={warmup}: expected a fraction of the run in [0, 1)")
    return total_steps


def _checked_fraction_floor(floor: float) -> float:
    if not 0 <= floor <= 1:
        raise ValueError(f"floor={floor}: expected a fraction of the initial rate in [0, 1]")
    return floor


def _rate_of_multiplier_one(optimizer: Optimizer, peaks: list[float]) -> float:
    """Return ``lr`` of a Blockwise optimizer; otherwise the smallest peak of the groups."""
    if all("multiplier" in group for group in optimizer.param_groups):
        return peaks[0] / float(optimizer.param_groups[0]["multiplier"])
    return min(peaks)
