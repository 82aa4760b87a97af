"""Finds the phases of lazy-to-rich learning in a pair of curves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

PLATEAU_END, EMERGENCE, CONVERGENCE = 0.1, 0.5, 0.9


@dataclass(frozen=True)
class Phases:
    """Times between the phases, in the unit of the input; NaN for events that did not occur.

    Attributes:
        partial_learning_end: The lazy loss reached a fraction of its initial value, by default 0.1.
        plateau_end: The progress of the rich mechanism reached 0.1.
        emergence: The progress reached 0.5.
        convergence: The progress reached 0.9.
    """

    partial_learning_end: float
    plateau_end: float
    emergence: float
    convergence: float

    @property
    def plateau_length(self) -> float:
        """Time from partial learning to the end of the plateau; negative in reverse order."""
        return self.plateau_end - self.partial_learning_end


def find_phases(
    times: Sequence[float],
    lazy_loss: Sequence[float],
    progress: Sequence[float],
    partial_share: float = 0.1,
) -> Phases:
    """Find the end of each phase, with linear interpolation between the points.

    Args:
        times: Increasing times.
        lazy_loss: Remaining loss of the lazy mechanism, one positive value per time.
        progress: Progress of the rich mechanism, 0 at the start and 1 when it is learned.
        partial_share: Fraction of its first value at which the lazy loss ends partial learning.

    Raises:
        ValueError: The curves are empty or have different lengths.
    """
    if not len(times) == len(lazy_loss) == len(progress) or not len(times):
        raise ValueError(
            f"times, lazy_loss and progress: expected the same number of points, at least one, got "
            f"{len(times)}, {len(lazy_loss)} and {len(progress)}"
        )
    learned = [1 - value / lazy_loss[0] for value in lazy_loss]
    return Phases(
        first_crossing(times, learned, 1 - partial_share),
        *(
            first_crossing(times, progress, share)
            for share in (PLATEAU_END, EMERGENCE, CONVERGENCE)
        ),
    )


def first_crossing(times: Sequence[float], values: Sequence[float], level: float) -> float:
    """Return the first time at which ``values`` reach ``level`` from below, or NaN."""
    for place, value in enumerate(values):
        if value >= level:
            if place == 0:
                return float(times[0])
            before = values[place - 1]
            share = (level - before) / (value - before)
            return float(times[place - 1] + share * (times[place] - times[place - 1]))
    return math.nan
