"""In which rounds agents gossip."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np

Shape = Literal["constant", "linear", "cosine", "window", "adaptive"]


@dataclass(frozen=True)
class Schedule:
    """After every ``every_n_steps`` optimizer steps comes a round, in which agents may gossip.

    The share of rounds with gossip follows a shape over the run; which ones they are follows from
    adding the shares up and gossiping whenever the sum passes a whole number. That is a pure
    function of the round, the same on all agents and after a resume, and spends a budget exactly.

    - ``constant``: ``rate``.
    - ``linear``, ``cosine``: from ``rate`` to ``end_rate``.
    - ``window``: ``rate`` in ``[start, start + width)``, as fractions of the run, and ``end_rate``
      outside. Windows of one width cost the same wherever they lie: unlike the released code of
      arXiv 2507.06542, none gets a dense round at the end of the run for nothing.
    - ``adaptive``: gossip when the squared distance from where an agent last gossiped, relative to
      the squared norm of its weights, exceeds ``threshold`` in the mean over agents. It costs one
      all-reduced number a round. After a full merge that distance bounds the consensus distance
      from above (Kamp et al., Efficient Decentralized Deep Learning by Dynamic Model Averaging,
      arXiv 1807.03210).

    Args:
        shape: of the share of rounds with gossip over the run.
        every_n_steps: optimizer steps a round.
        rate: share of rounds with gossip, in [0, 1].
        end_rate: the share at the end, or outside of the window, in [0, 1].
        start: where the window begins, in [0, 1).
        width: of the window, above 0; it must lie within the run.
        budget: rounds with gossip in the whole run, spread in proportion to the shape's shares.
        threshold: of ``adaptive``, above 0.

    Raises:
        ValueError: an argument outside its range, or one that the shape does not read.
    """

    shape: Shape = "constant"
    every_n_steps: int = 1
    rate: float = 1.0
    end_rate: float = 0.0
    start: float | None = None
    width: float | None = None
    budget: int | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.shape not in get_args(Shape):
            raise ValueError(f"shape={self.shape!r}: expected one of {', '.join(get_args(Shape))}")
        if self.every_n_steps < 1:
            raise ValueError(f"every_n_steps={self.every_n_steps}: expected at least 1")
        for name in ("rate", "end_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected a share in [0, 1]")
        self._check_window()
        self._check_threshold()
        if self.budget is not None and (self.budget < 0 or self.shape == "adaptive"):
            raise ValueError(
                f"budget={self.budget}: expected 0 or more, and a shape other than 'adaptive'"
            )

    def _check_window(self) -> None:
        if self.shape != "window":
            if self.start is not None or self.width is not None:
                raise ValueError(
                    f"start={self.start}, width={self.width}: shape={self.shape!r} reads neither; "
                    "set shape='window' or leave them out"
                )
            return
        start, width = self.start, self.width
        if start is None or width is None or not (0 <= start < 1 and width > 0):
            raise ValueError(
                f"start={start}, width={width}: shape='window' needs a start in [0, 1) and a width "
                "above 0, as fractions of the run"
            )
        if start + width > 1 + 1e-9:
            raise ValueError(
                f"start={start}, width={width}: the window ends outside the run, at "
                f"{start + width:g} of it; choose start + width of at most 1"
            )

    def _check_threshold(self) -> None:
        if (self.shape == "adaptive") != (self.threshold is not None):
            raise ValueError(
                f"threshold={self.threshold}: shape='adaptive' needs one, no other shape reads it"
            )
        if self.threshold is not None and not (
            self.threshold > 0 and math.isfinite(self.threshold)
        ):
            raise ValueError(f"threshold={self.threshold}: expected a finite number above 0")

    def check(self, total_steps: float) -> None:
        """Refuse a run that this schedule cannot be kept in.

        Args:
            total_steps: optimizer steps of the run; infinity where it has no known end.

        Raises:
            ValueError: a shape or a budget over a run without an end, more rounds than there are,
                or a window that no round falls into.
        """
        if math.isinf(total_steps):
            if self.shape not in ("constant", "adaptive") or self.budget is not None:
                raise ValueError(
                    f"shape={self.shape!r}, budget={self.budget}: the run has no known end; set "
                    "trainer.max_steps, or trainer.max_epochs where the training loader has a "
                    "length, or use shape='constant' without a budget"
                )
            return
        rounds = int(total_steps) // self.every_n_steps
        if self.shape == "adaptive":
            return
        shares = _shares(self, rounds)
        allowed = int((shares > 0).sum())
        if self.shape == "window" and self.rate > 0 and not self._rounds_in_window(rounds):
            raise ValueError(
                f"start={self.start}, width={self.width}: no round falls into the window, as the "
                f"run has {rounds} rounds of {self.every_n_steps} steps; make it wider or lower "
                "every_n_steps"
            )
        if self.budget is not None and self.budget > allowed:
            raise ValueError(
                f"budget={self.budget}: the schedule allows gossip in {allowed} of the run's "
                f"{rounds} rounds; lower the budget or every_n_steps"
            )

    def round_after(self, steps: int) -> int | None:
        """The number of the round that follows ``steps`` optimizer steps, if one does."""
        return steps // self.every_n_steps - 1 if steps and not steps % self.every_n_steps else None

    def gossips(self, round_number: int, total_steps: float) -> bool:
        """Whether the agents gossip in that round; ``adaptive`` may, in each."""
        if self.shape == "adaptive":
            return True
        if math.isinf(total_steps):
            return math.floor((round_number + 1) * self.rate + 1e-9) > math.floor(
                round_number * self.rate + 1e-9
            )
        rounds = int(total_steps) // self.every_n_steps
        return round_number < rounds and bool(_chosen(self, rounds)[round_number])

    def in_window(self, round_number: int, total_steps: float) -> bool:
        """Whether that round lies in the window."""
        if self.shape != "window":
            return False
        return round_number in self._rounds_in_window(int(total_steps) // self.every_n_steps)

    def _rounds_in_window(self, rounds: int) -> range:
        assert self.start is not None
        assert self.width is not None
        # The number of rounds depends on the width alone, so that moving the window is free.
        size = round(self.width * rounds)
        first = min(round(self.start * rounds), rounds - size)
        return range(first, first + size)


def _shares(schedule: Schedule, rounds: int) -> np.ndarray:
    """The share of each round, ``(rounds,)``."""
    begin, end = schedule.rate, schedule.end_rate
    progress = np.arange(rounds) / max(rounds - 1, 1)
    if schedule.shape == "linear":
        return begin + (end - begin) * progress
    if schedule.shape == "cosine":
        return end + (begin - end) * (1 + np.cos(np.pi * progress)) / 2
    if schedule.shape == "window":
        shares = np.full(rounds, end)
        shares[list(schedule._rounds_in_window(rounds))] = begin
        return shares
    return np.full(rounds, begin)


@lru_cache(maxsize=64)
def _chosen(schedule: Schedule, rounds: int) -> np.ndarray:
    """Which rounds have gossip, ``(rounds,)``, bool."""
    shares = _shares(schedule, rounds)
    if schedule.budget is not None and rounds:
        shares = _scaled_to(shares, schedule.budget)
    sums = np.floor(np.cumsum(shares) + 1e-9)
    return np.diff(sums, prepend=0.0) > 0


def _scaled_to(shares: np.ndarray, total: float) -> np.ndarray:
    """In proportion to ``shares``, none above 1, together ``total``."""
    scaled = np.zeros_like(shares)
    is_full = shares <= 0
    while (left := total - scaled.sum()) > 1e-9 and not is_full.all():
        scaled[~is_full] += left * shares[~is_full] / shares[~is_full].sum()
        is_full |= scaled >= 1
        scaled = np.minimum(scaled, 1.0)
    return scaled
