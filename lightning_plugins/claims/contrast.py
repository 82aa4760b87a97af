"""Linear contrasts of arms, paired by seed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_FEWEST_PAIRS = 2


@dataclass(frozen=True)
class Contrast:
    """``Σ weight·metric`` over arms for each seed that has a finite value in all of them."""

    label: str
    differences: dict[int, float]
    dropped: int

    @property
    def values(self) -> list[float]:
        """The contrast of each seed."""
        return list(self.differences.values())

    @property
    def mean(self) -> float:
        """Mean over the seeds; NaN without any."""
        return math.fsum(self.values) / len(self.values) if self.values else math.nan


def paired_contrast(
    values: Mapping[str, Mapping[int, Mapping[str, float]]],
    metric: str,
    weights: Mapping[str, float],
    label: str = "",
) -> Contrast:
    """The contrast of a metric; seeds that lack a finite value in some arm are dropped, counted.

    An arm with weight zero still has to have the seed, so that contrasts of the same arms are
    over the same seeds. The label defaults to "positive arm - negative arm".
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
    return Contrast(label, differences, len(seeds) - len(differences))


def obstacle(
    values: Mapping[str, Mapping[int, Mapping[str, float]]],
    arms: Sequence[str],
    contrasts: Sequence[Contrast],
) -> str:
    """Why no verdict can be given: a tuned value on its grid's edge, or too few pairs; or ""."""
    for arm in arms:
        for metrics in values.get(arm, {}).values():
            if metrics.get("on_grid_edge", 0.0) > 0:
                return f"the best value of {arm} is on the edge of its grid"
    fewest = min(len(contrast.differences) for contrast in contrasts)
    if fewest < _FEWEST_PAIRS:
        return f"{fewest} usable pair{'s' if fewest != 1 else ''}; at least {_FEWEST_PAIRS} needed"
    return ""
