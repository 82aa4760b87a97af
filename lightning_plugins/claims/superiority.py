"""Rule: an arm is better than another, and than its rivals."""

import math
from dataclasses import dataclass

from lightning_plugins.claims.contrast import obstacle, paired_contrast
from lightning_plugins.claims.judgement import Judgement
from lightning_plugins.claims.rule import (
    Direction,
    HashedRule,
    Values,
    blocked,
    check_direction,
    check_distinct,
    judgement_of,
)
from lightning_plugins.claims.statistics import SIGNIFICANCE, one_sided_p, paired_interval


@dataclass(frozen=True)
class Superiority(HashedRule):
    """``arm`` is better than ``over``, and than every rival, in ``metric``.

    The contrast is the improvement, paired by seed: ``over - arm`` if ``direction`` is
    ``"lower"``, ``arm - over`` if ``"higher"``; likewise for each rival.

    * *supported*: every improvement is positive with a two-sided paired t test at most 0.05. The
      p value is the largest of them (intersection-union: all must hold, so no correction among
      them), then Holm over the paper's claims.
    * *not supported*: some improvement is shown to be below ``smallest_effect`` (two-sided
      paired t test against it, Bonferroni over the contrasts, Holm over the claims); with the
      default 0 that means worse.
    * *inconclusive*: else, or fewer than two pairs, or a tuned value on its grid's edge.

    Args:
        metric: name of the metric.
        arm: the arm that is claimed to be better.
        over: the arm it is claimed to beat.
        direction: which way is better.
        rivals: arms at equal compute and tuning that it must beat as well.
        smallest_effect: smallest improvement that would matter, in the metric's unit.
    """

    metric: str
    arm: str
    over: str
    direction: Direction
    rivals: tuple[str, ...] = ()
    smallest_effect: float = 0.0

    def __post_init__(self) -> None:
        check_direction(self.direction)
        check_distinct(self.arms)
        if not (math.isfinite(self.smallest_effect) and self.smallest_effect >= 0):
            raise ValueError(f"smallest_effect must be a number >= 0, got {self.smallest_effect!r}")

    @property
    def arms(self) -> tuple[str, ...]:
        """The arm, the one it must beat, and the rivals."""
        return (self.arm, self.over, *self.rivals)

    def describe(self) -> str:
        """The rule in words."""
        beaten = " and ".join((self.over, *self.rivals))
        floor = (
            f"; an effect below {self.smallest_effect:g} refutes" if self.smallest_effect else ""
        )
        return (
            f"{self.arm} has {self.direction} {self.metric} than {beaten} "
            f"(paired t, two-sided 5 %, Holm within the paper{floor})"
        )

    def judge(self, values: Values) -> Judgement:
        """Apply the rule."""
        sign = 1.0 if self.direction == "lower" else -1.0
        contrasts = [
            paired_contrast(values, self.metric, {other: sign, self.arm: -sign})
            for other in (self.over, *self.rivals)
        ]
        stop = obstacle(values, self.arms, contrasts)
        if stop:
            return blocked(contrasts, 1 - SIGNIFICANCE, stop)
        tests = [paired_interval(contrast.values) for contrast in contrasts]
        against = min(_two_sided_below(one.values, self.smallest_effect) for one in contrasts)
        missed = [
            contrast.label
            for contrast, test in zip(contrasts, tests, strict=True)
            if test.estimate <= 0 or test.p > SIGNIFICANCE
        ]
        note = f"not shown to be positive: {', '.join(missed)}" if missed and self.rivals else ""
        return judgement_of(
            contrasts,
            favours=all(test.estimate > 0 for test in tests),
            p_for=max(test.p if test.estimate > 0 else 1.0 for test in tests),
            p_against=min(1.0, len(contrasts) * against),
            note=note,
        )


def _two_sided_below(values: list[float], bound: float) -> float:
    """Two-sided p value of a mean below ``bound``; 1 where the mean is not below it."""
    return min(1.0, 2 * one_sided_p([value - bound for value in values]))
