"""Rule: an arm recovers a share of the change from one arm to another."""

import dataclasses
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
from lightning_plugins.claims.statistics import (
    SIGNIFICANCE,
    fieller_interval,
    paired_interval,
)


@dataclass(frozen=True)
class Recovers(HashedRule):
    """``arm`` recovers at least ``share`` of the change from one arm to another.

    With A, B = ``between`` the headline contrast is ``(A - arm) - share·(A - B)`` for
    ``direction="lower"`` and its negative for ``"higher"``: linear in the metrics, so that its
    paired t interval is exact. The change ``A - B`` itself must be there to be recovered.

    * *supported*: change and contrast are both positive, each with a two-sided paired t test at
      most 0.05 (the larger p counts; Holm over the paper's claims).
    * *not supported*: the change is positive and the contrast negative, each at most 0.05.
    * *inconclusive*: else, in particular where the change is not shown; or fewer than two
      pairs, or a tuned value on its grid's edge.

    The recovered share ``(A - arm)/(A - B)`` is reported with Fieller's interval.

    Args:
        metric: name of the metric.
        arm: the arm that is claimed to recover the change.
        between: the arm without the change, and the arm with all of it.
        share: between 0 (excluded) and 1.
        direction: which way the change goes.
    """

    metric: str
    arm: str
    between: tuple[str, str]
    share: float
    direction: Direction = "lower"

    def __post_init__(self) -> None:
        check_direction(self.direction)
        if len(self.between) != 2:
            raise ValueError(f"between must be two arms, got {self.between!r}")
        object.__setattr__(self, "between", tuple(self.between))
        check_distinct(self.arms)
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be in (0, 1], got {self.share!r}")

    @property
    def arms(self) -> tuple[str, ...]:
        """The arm and the two ends of the change."""
        return (self.arm, *self.between)

    def describe(self) -> str:
        """The rule in words."""
        start, full = self.between
        return (
            f"{self.arm} recovers at least {100 * self.share:g} % of the {self.direction} "
            f"{self.metric} of {full} against {start} "
            "(paired t of a linear contrast, two-sided 5 %, Holm within the paper)"
        )

    def judge(self, values: Values) -> Judgement:
        """Apply the rule."""
        start, full = self.between
        sign = 1.0 if self.direction == "lower" else -1.0
        weights = {
            start: sign * (1 - self.share),
            self.arm: -sign,
            full: sign * self.share,
        }
        contrast = paired_contrast(
            values, self.metric, weights, f"gain of {self.arm} - {self.share:g} × gain of {full}"
        )
        change = paired_contrast(values, self.metric, {start: sign, full: -sign, self.arm: 0.0})
        gain = paired_contrast(values, self.metric, {start: sign, self.arm: -sign, full: 0.0})
        stop = obstacle(values, self.arms, [contrast])
        if stop:
            return blocked([contrast, change, gain], 1 - SIGNIFICANCE, stop)
        of_contrast, of_change = paired_interval(contrast.values), paired_interval(change.values)
        p_change = of_change.p if of_change.estimate > 0 else 1.0
        favours = of_contrast.estimate > 0
        result = judgement_of(
            [contrast, change, gain],
            favours=favours,
            p_for=max(p_change, of_contrast.p if favours else 1.0),
            p_against=max(p_change, 1.0 if favours else of_contrast.p),
            note=""
            if p_change <= SIGNIFICANCE
            else f"the change from {start} to {full} is not shown: nothing to recover",
        )
        return dataclasses.replace(
            result,
            ratio_label="share recovered",
            ratio=gain.mean / change.mean if change.mean else math.nan,
            ratio_interval=fieller_interval(gain.values, change.values, 1 - SIGNIFICANCE),
        )
