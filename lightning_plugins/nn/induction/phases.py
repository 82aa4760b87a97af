"""The phases of lazy-to-rich learning, found in a pair of curves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

PLATEAU_END, EMERGENCE, CONVERGENCE = 0.1, 0.5, 0.9


@dataclass(frozen=True)
class Phases:
    """Moments between the phases, in the unit of the times; NaN for what did not happen.

    Attributes:
        partial_learning_end: the lazy loss fell to a share of where it started, by default a tenth.
        plateau_end: the rich mechanism made the first tenth of its way.
        emergence: it made half of its way.
        convergence: it made nine tenths of its way.
    """

    partial_learning_end: float
    plateau_end: float
    emergence: float
    convergence: float

    @property
    def plateau_length(self) -> float:
        """From the end of partial learning to the end of the plateau; negative in reverse order."""
        return self.plateau_end - self.partial_learning_end


def find_phases(
    times: Sequence[float],
    lazy_loss: Sequence[float],
    progress: Sequence[float],
    partial_share: float = 0.1,
) -> Phases:
    """When each phase ends, between the points by linear interpolation.

    Args:
        times: increasing.
        lazy_loss: what the easy mechanism has still to learn, one positive value a time.
        progress: of the rich mechanism, 0 at the start and 1 when it is learned.
        partial_share: of its first value that the lazy loss falls to in partial learning.

    Raises:
        ValueError: curves of different lengths, or without a point.
    """
    if not len(times) == len(lazy_loss) == len(progress) or not len(times):
        raise ValueError(
            f"times, lazy_loss and progress: expected equally many points, at least one, got "
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
    """When ``values`` first reach ``level`` from below; NaN if they do not."""
    for place, value in enumerate(values):
        if value >= level:
            if place == 0:
                return float(times[0])
            before = values[place - 1]
            share = (level - before) / (value - before)
            return float(times[place - 1] + share * (times[place] - times[place - 1]))
    return math.nan
