"""The schedule of gossip: in which rounds agents communicate."""

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np

Shape = Literal["constant", "linear", "cosine", "window", "adaptive"]


@dataclass(frozen=True)
class Schedule:
    """Selects the rounds in which agents gossip; a round follows every ``every_n_steps`` steps.

    A shape gives the share of rounds with gossip over the run. The shares are summed up, and agents
    gossip in each round in which the sum passes a whole number. The selection is therefore a pure
    function of the round, the same on all agents and after a resume, and meets a budget exactly.

    - ``constant``: ``rate``.
    - ``linear``, ``cosine``: from ``rate`` to ``end_rate``.
    - ``window``: ``rate`` in ``[start, start + width)``, as fractions of the run, and ``end_rate``
      outside. The cost of a window depends only on its width. The released code of arXiv 2507.06542
      adds a dense round at the end of the run to some windows; we do not.
    - ``adaptive``: gossip if the squared distance from the weights after the last gossip, relative
      to the squared norm of the weights, exceeds ``threshold`` in the mean over agents. It costs an
      all-reduce of one number per round. After a full merge this distance is an upper bound of the
      consensus distance (Kamp et al., Efficient Decentralized Deep Learning by Dynamic Model
      Averaging, arXiv 1807.03210).

    Args:
        shape: Shape of the share of rounds with gossip over the run.
        every_n_steps: Optimizer steps per round.
        rate: Share of rounds with gossip, in [0, 1].
        end_rate: Share at the end of the run, or outside the window, in [0, 1].
        start: Start of the window as a fraction of the run, in [0, 1).
        width: Width of the window as a fraction of the run, above 0; it must end within the run.
        budget: Number of rounds with gossip in the run, distributed in proportion to the shares.
        threshold: Threshold of the ``adaptive`` shape, above 0.
        every: Time between meetings of agents that take their own steps, such as ``30s``, ``5min``
            or ``1h``, in place of the other arguments.

    Raises:
        ValueError: An argument is outside its range, or the shape does not use it.
    """

    shape: Shape = "constant"
    every_n_steps: int = 1
    rate: float = 1.0
    end_rate: float = 0.0
    start: float | None = None
    width: float | None = None
    budget: int | None = None
    threshold: float | None = None
    every: str | None = None

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
        self._check_every()
        if self.budget is not None and (self.budget < 0 or self.shape == "adaptive"):
            raise ValueError(
                f"budget={self.budget}: expected 0 or more, and a shape other than 'adaptive'"
            )

    def _check_window(self) -> None:
        if self.shape != "window":
            if self.start is not None or self.width is not None:
                raise ValueError(
                    f"start={self.start}, width={self.width}: shape={self.shape!r} uses neither; "
                    "set shape='window' or remove them"
                )
            return
        start, width = self.start, self.width
        if start is None or width is None or not (0 <= start < 1 and width > 0):
            raise ValueError(
                f"start={start}, width={width}: shape='window' requires a start in [0, 1) and a "
                "width above 0, as fractions of the run"
            )
        if start + width > 1 + 1e-9:
            raise ValueError(
                f"start={start}, width={width}: the window ends at {start + width:g} of the run, "
                "after its end; choose start + width of at most 1"
            )

    def _check_threshold(self) -> None:
        if (self.shape == "adaptive") != (self.threshold is not None):
            raise ValueError(
                f"threshold={self.threshold}: shape='adaptive' requires it, no other shape uses it"
            )
        if self.threshold is not None and not (
            self.threshold > 0 and math.isfinite(self.threshold)
        ):
            raise ValueError(f"threshold={self.threshold}: expected a finite number above 0")

    def _check_every(self) -> None:
        if self.every is None:
            return
        if not self.seconds:
            raise ValueError(
                f"every={self.every!r}: expected a number above 0 of seconds, minutes or hours, "
                "such as '30s', '5min' or '1h'"
            )
        if self.shape != "constant" or self.every_n_steps != 1 or self.rate != 1 or self.budget:
            raise ValueError(
                f"every={self.every!r}: agents that meet by time gossip at every meeting; remove "
                "shape, every_n_steps, rate and budget"
            )

    @property
    def seconds(self) -> float | None:
        """Seconds between meetings, with ``every``."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h)", self.every or "")
        return float(found[1]) * {"s": 1, "min": 60, "h": 3600}[found[2]] if found else None

    def check(self, total_steps: float) -> None:
        """Check that the schedule fits the run.

        Args:
            total_steps: Optimizer steps of the run; infinity if it has no known end.

        Raises:
            ValueError: The shape or the budget requires a known end, the budget exceeds the number
                of available rounds, or the window contains no round.
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
                f"start={self.start}, width={self.width}: the window contains no round, as the "
                f"run has {rounds} rounds of {self.every_n_steps} steps; widen it or lower "
                "every_n_steps"
            )
        if self.budget is not None and self.budget > allowed:
            raise ValueError(
                f"budget={self.budget}: the schedule allows gossip in {allowed} of the run's "
                f"{rounds} rounds; lower the budget or every_n_steps"
            )

    def round_after(self, steps: int) -> int | None:
        """Return the index of the round after ``steps`` optimizer steps, or None."""
        return steps // self.every_n_steps - 1 if steps and not steps % self.every_n_steps else None

    def gossips(self, round_number: int, total_steps: float) -> bool:
        """Whether the agents gossip in this round; always true for ``adaptive``."""
        if self.shape == "adaptive":
            return True
        if math.isinf(total_steps):
            return math.floor((round_number + 1) * self.rate + 1e-9) > math.floor(
                round_number * self.rate + 1e-9
            )
        rounds = int(total_steps) // self.every_n_steps
        return round_number < rounds and bool(_chosen(self, rounds)[round_number])

    def in_window(self, round_number: int, total_steps: float) -> bool:
        """Whether this round lies in the window."""
        if self.shape != "window":
            return False
        return round_number in self._rounds_in_window(int(total_steps) // self.every_n_steps)

    def _rounds_in_window(self, rounds: int) -> range:
        assert self.start is not None
        assert self.width is not None
        # The number of rounds depends only on the width, so that every start costs the same.
        size = round(self.width * rounds)
        first = min(round(self.start * rounds), rounds - size)
        return range(first, first + size)


def _shares(schedule: Schedule, rounds: int) -> np.ndarray:
    """Return the share of each round, ``(rounds,)``."""
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
    """Return a boolean mask of the rounds with gossip, ``(rounds,)``."""
    shares = _shares(schedule, rounds)
    if schedule.budget is not None and rounds:
        shares = _scaled_to(shares, schedule.budget)
    sums = np.floor(np.cumsum(shares) + 1e-9)
    return np.diff(sums, prepend=0.0) > 0


def _scaled_to(shares: np.ndarray, total: float) -> np.ndarray:
    """Scale ``shares`` in proportion to sum to ``total``, with each clipped to 1."""
    scaled = np.zeros_like(shares)
    is_full = shares <= 0
    while (left := total - scaled.sum()) > 1e-9 and not is_full.all():
        scaled[~is_full] += left * shares[~is_full] / shares[~is_full].sum()
        is_full |= scaled >= 1
        scaled = np.minimum(scaled, 1.0)
    return scaled
