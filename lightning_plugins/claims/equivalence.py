"""Rule: an arm is as good as another within a margin."""

import dataclasses
import math
from dataclasses import dataclass

from lightning_plugins.claims.contrast import obstacle, paired_contrast
from lightning_plugins.claims.judgement import Judgement
from lightning_plugins.claims.rule import (
    HashedRule,
    Values,
    blocked,
    check_distinct,
    judgement_of,
)
from lightning_plugins.claims.statistics import SIGNIFICANCE, fieller_interval, tost


@dataclass(frozen=True)
class Equivalence(HashedRule):
    """``arm`` is as good as ``to`` in ``metric``, within a margin stated beforehand (TOST).

    The contrast is ``arm - to``, paired by seed. With ``relative`` the margin is a share of
    ``to``'s mean, and the tests are made on ``arm - (1 ± margin)·to``, which is linear, so that
    the uncertainty of ``to``'s mean is part of them.

    * *supported*: both one-sided paired t tests are at most 0.05 (Holm over the paper's claims),
      that is, the 90 % interval lies inside the margin.
    * *not supported*: the difference is shown to exceed the margin (two-sided, Holm).
    * *inconclusive*: else, or fewer than two pairs, or a tuned value on its grid's edge, or a
      relative margin of a metric that is not positive.

    Args:
        metric: name of the metric.
        arm: the arm that is claimed to be as good.
        to: the arm it is compared with.
        margin: half width, in the metric's unit or as a share of ``to``'s mean.
        relative: whether ``margin`` is a share.
    """

    metric: str
    arm: str
    to: str
    margin: float
    relative: bool = False

    def __post_init__(self) -> None:
        check_distinct(self.arms)
        if not (math.isfinite(self.margin) and self.margin > 0):
            raise ValueError(f"margin must be a number > 0, got {self.margin!r}")

    @property
    def arms(self) -> tuple[str, ...]:
        """The two arms."""
        return (self.arm, self.to)

    def describe(self) -> str:
        """The rule in words."""
        margin = f"{100 * self.margin:g} %" if self.relative else f"{self.margin:g}"
        return (
            f"{self.arm} is within ±{margin} of {self.to} in {self.metric} "
            "(TOST, 5 %, Holm within the paper)"
        )

    def judge(self, values: Values) -> Judgement:
        """Apply the rule."""
        plain = paired_contrast(values, self.metric, {self.arm: 1.0, self.to: -1.0})
        confidence = 1 - 2 * SIGNIFICANCE
        stop = obstacle(values, self.arms, [plain])
        reference = [values[self.to][seed][self.metric] for seed in plain.differences]
        if not stop and self.relative and min(reference) <= 0:
            stop = f"a relative margin needs a positive {self.metric}"
        if stop:
            return blocked([plain], confidence, stop)
        margin = self.margin * (sum(reference) / len(reference) if self.relative else 1.0)
        margins = [self.margin * (one if self.relative else 1.0) for one in reference]
        inside, outside = tost(plain.values, margins)
        result = judgement_of(
            [plain],
            favours=abs(plain.mean) < margin,
            p_for=inside,
            p_against=min(1.0, 2 * outside),
            confidence=confidence,
            margin=margin,
        )
        if not self.relative:
            return result
        low, high = fieller_interval(plain.values, reference, confidence)
        ratio = plain.mean / (sum(reference) / len(reference))
        return dataclasses.replace(
            result, ratio_label="relative difference", ratio=ratio, ratio_interval=(low, high)
        )
