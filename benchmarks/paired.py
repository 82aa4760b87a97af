"""Ratios of process CPU time between two implementations, measured alternately."""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """The median of the paired ratios ``b / a`` with its 95 % bounds (order statistics)."""

    median: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}] of {self.pairs} pairs"


def paired_ratio(
    a: Callable[[], float], b: Callable[[], float], pairs: int = 32, warmup: int = 2
) -> Ratio:
    """Run ``a b b a`` blocks; each call does one block of work and returns its CPU seconds.

    A pair is one ``a`` and the adjacent ``b``, so that drift of the machine affects both.
    """
    for _ in range(warmup):
        a()
        b()
    ratios: list[float] = []
    while len(ratios) < pairs:
        first_a, first_b, second_b, second_a = a(), b(), b(), a()
        ratios += [first_b / first_a, second_b / second_a]
    return median_ratio(ratios)


def median_ratio(ratios: list[float]) -> Ratio:
    """Return the median of paired ratios with its bounds."""
    ordered = sorted(ratios)
    rank = _rank_of_lower_bound(len(ordered))
    return Ratio(statistics.median(ordered), ordered[rank], ordered[-1 - rank], len(ordered))


def _rank_of_lower_bound(n: int) -> int:
    """Largest k such that [x_(k), x_(n-1-k)] contains the median with 95 % probability."""
    outside = 0.0
    for k in range(n // 2):
        outside += 2 * math.comb(n, k) / 2**n
        if outside > 0.05:
            return max(0, k - 1)
    return 0
