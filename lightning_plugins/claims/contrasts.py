"""Paired contrasts of arms: the numbers that a rule tests."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightning_plugins.claims.statistics import SIGNIFICANCE, PairedInterval, paired_interval
from lightning_plugins.reports.report_data import ContrastEvidence

Values = Mapping[str, Mapping[int, Mapping[str, float]]]
"""Measured values: arm -> seed -> metric -> value."""

_FEWEST_PAIRS = 2


class NoVerdict(Exception):
    """A claim cannot be judged; the message gives the reason."""


@dataclass(frozen=True)
class Contrast:
    """``Σ weight·metric`` over arms, for each seed with a finite value in all of them.

    ``dropped`` is the number of the other seeds.
    """

    label: str
    differences: dict[int, float]
    dropped: int

    @classmethod
    def of(
        cls, values: Values, metric: str, weights: Mapping[str, float], label: str = ""
    ) -> "Contrast":
        """Return the contrast with a weight per arm; the label defaults to "positive - negative".

        An arm with weight zero must also have the seed.
        """
        of_arm = {arm: values.get(arm, {}) for arm in weights}
        seeds = sorted({seed for cells in of_arm.values() for seed in cells})
        differences: dict[int, float] = {}
        for seed in seeds:
            numbers = [of_arm[arm].get(seed, {}).get(metric, math.nan) for arm in weights]
            if all(math.isfinite(number) for number in numbers):
                pairs = zip(weights.values(), numbers, strict=True)
                differences[seed] = math.fsum(weight * number for weight, number in pairs)
        if not label:
            plus = next(arm for arm, weight in weights.items() if weight > 0)
            minus = next(arm for arm, weight in weights.items() if weight < 0)
            label = f"{plus} - {minus}"
        return cls(label, differences, len(seeds) - len(differences))

    @property
    def values(self) -> list[float]:
        """The differences in the order of the seeds."""
        return list(self.differences.values())

    @property
    def mean(self) -> float:
        """Mean difference, NaN without a pair."""
        return self.test().estimate

    def test(self, confidence: float = 1 - SIGNIFICANCE) -> PairedInterval:
        """Return the paired t test and interval."""
        return paired_interval(self.values, confidence)

    def evidence(self, confidence: float = 1 - SIGNIFICANCE) -> ContrastEvidence:
        """Return this contrast as data of a report."""
        test = self.test(confidence)
        return ContrastEvidence(self.label, self.differences, test.estimate, test.interval)


def require_pairs(values: Values, arms: Sequence[str], contrasts: Sequence[Contrast]) -> None:
    """Raise NoVerdict for fewer than two pairs, or a best value on the edge of an arm's grid."""
    for arm in arms:
        for metrics in values.get(arm, {}).values():
            if metrics.get("on_grid_edge", 0.0) > 0:
                raise NoVerdict(f"the best value of {arm} is on the edge of its grid")
    fewest = min(len(contrast.differences) for contrast in contrasts)
    if fewest < _FEWEST_PAIRS:
        raise NoVerdict(
            f"{fewest} usable pair{'s' if fewest != 1 else ''}; at least {_FEWEST_PAIRS} needed"
        )
