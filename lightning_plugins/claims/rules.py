"""The rules that judge claims: superiority, recovery of a change, and equivalence.

A rule is plain data, is written before the run, and its hash is stored with each result.
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from lightning_plugins.claims.contrasts import Contrast, NoVerdict, Values, require_pairs
from lightning_plugins.claims.fingerprints import sha256_of
from lightning_plugins.claims.judgement import Judgement, Verdict
from lightning_plugins.claims.statistics import (
    POWER,
    SIGNIFICANCE,
    fieller_interval,
    minimal_detectable_effect,
    one_sided_p,
    pooled_effect,
    student_quantile,
    tost,
)

Direction = Literal["lower", "higher"]


class Rule(ABC):
    """The base class of the rules, which are frozen dataclasses of plain data.

    Whatever a rule tests, the verdict is *undecided* with fewer than two pairs, or if the tuned
    value of an arm is on the edge of its grid.
    """

    metric: str
    confidence: ClassVar[float] = 1 - SIGNIFICANCE

    @property
    @abstractmethod
    def arms(self) -> tuple[str, ...]:
        """Every arm that the verdict depends on."""

    @abstractmethod
    def describe(self) -> str:
        """Return the rule in words."""

    def sha256(self, claim: str = "") -> str:
        """Hash of the fields, the rule's class, the claim's name, the test level and the power."""
        fields = dataclasses.asdict(self)  # type: ignore[call-overload]
        kind = type(self).__name__
        levels = {"significance": SIGNIFICANCE, "power": POWER}
        return sha256_of({"claim": claim, "rule": kind, "fields": fields, **levels})

    def judge(self, values: Values) -> Judgement:
        """Apply the rule to measured values, without a correction for other claims."""
        contrasts = self._contrasts(values)
        tests = [contrast.test(self.confidence) for contrast in contrasts]
        main = tests[0]
        judged = Judgement(
            verdict=Verdict.UNDECIDED,
            estimate=main.estimate,
            interval=main.interval,
            confidence=self.confidence,
            favours=False,
            p_for=math.nan,
            p_against=math.nan,
            n=min(test.n for test in tests),
            dropped=max(contrast.dropped for contrast in contrasts),
            minimal_detectable_effect=minimal_detectable_effect(main.standard_deviation, main.n),
            comparisons=tuple(contrast.evidence(self.confidence) for contrast in contrasts),
            deviation=max(test.standard_deviation for test in tests),
        )
        try:
            require_pairs(values, self.arms, contrasts)
            judged = replace(judged, **self._tested(values, contrasts))
        except NoVerdict as obstacle:
            return replace(judged, note=str(obstacle), blocked=True)
        if not judged.note and main.standard_deviation == 0:
            judged = replace(judged, note="the same difference in every seed")
        return judged.decided()

    @abstractmethod
    def _contrasts(self, values: Values) -> list[Contrast]:
        """Return the contrasts, the main one first."""

    @abstractmethod
    def _tested(self, values: Values, contrasts: Sequence[Contrast]) -> dict[str, Any]:
        """Return the fields of the judgement that the tests determine."""


@dataclass(frozen=True)
class Superiority(Rule):
    """``arm`` is better than ``over``, and than every rival, in ``metric``.

    The contrast is the improvement, paired by seed: ``over - arm`` if ``direction`` is
    ``"lower"``, ``arm - over`` if it is ``"higher"``; the same for each rival.

    * *supported*: every improvement is positive with p at most 0.05 in a two-sided paired t test.
      The p value of the claim is the largest of them. All improvements must hold
      (intersection-union test), so they need no correction among themselves; Holm's method then
      adjusts over the claims of its family.
    * *refuted at this scale*: at least one improvement is shown to be below ``smallest_effect``
      (two-sided paired t test against it, Bonferroni over the contrasts, Holm over the claims).
      With the default of 0 this means worse.

    Args:
        metric: Name of the metric.
        arm: The arm that the claim says is better.
        over: The arm that it is compared with.
        direction: Whether lower or higher values are better.
        rivals: Arms with equal compute and tuning that ``arm`` must also beat.
        smallest_effect: Smallest improvement that matters, in the metric's unit.
    """

    metric: str
    arm: str
    over: str
    direction: Direction
    rivals: tuple[str, ...] = ()
    smallest_effect: float = 0.0

    def __post_init__(self) -> None:
        _check_direction(self.direction)
        _check_distinct(self.arms)
        if not (math.isfinite(self.smallest_effect) and self.smallest_effect >= 0):
            raise ValueError(f"smallest_effect must be a number >= 0, got {self.smallest_effect!r}")

    @property
    def arms(self) -> tuple[str, ...]:
        """``arm``, ``over`` and the rivals."""
        return (self.arm, self.over, *self.rivals)

    def describe(self) -> str:
        """Return the rule in words."""
        beaten = " and ".join((self.over, *self.rivals))
        floor = (
            f"; an effect below {self.smallest_effect:g} refutes" if self.smallest_effect else ""
        )
        return (
            f"{self.arm} has {self.direction} {self.metric} than {beaten} "
            f"(paired t, two-sided 5 %, Holm within the family{floor})"
        )

    def _contrasts(self, values: Values) -> list[Contrast]:
        return [
            _improvement(values, self.metric, self.arm, other, self.direction)
            for other in (self.over, *self.rivals)
        ]

    def _tested(self, values: Values, contrasts: Sequence[Contrast]) -> dict[str, Any]:
        p_for = [_p_above_zero(contrast) for contrast in contrasts]
        against = min(_p_below(contrast, self.smallest_effect) for contrast in contrasts)
        pairs = zip(contrasts, p_for, strict=True)
        missed = [contrast.label for contrast, p in pairs if p > SIGNIFICANCE]
        return {
            "favours": all(contrast.mean > 0 for contrast in contrasts),
            "p_for": max(p_for),
            "p_against": min(1.0, len(contrasts) * against),
            "note": f"not shown to be positive: {', '.join(missed)}"
            if missed and self.rivals
            else "",
            "smallest_effect": self.smallest_effect,
        }


@dataclass(frozen=True)
class PooledSuperiority(Rule):
    """Over several settings, one kind of arm is better than another on average.

    The improvements of each setting are paired by seed; their means are pooled by a random-effects
    meta-analysis (:func:`~lightning_plugins.claims.statistics.pooled_effect`), so a setting with an
    effect of its own does not decide alone. It is *undecided* if a setting has equal differences.

    * *supported*: the pooled improvement is positive with p at most 0.05 (two-sided, Holm over the
      family).
    * *refuted at this scale*: it is shown to be below ``smallest_effect`` in the same way.

    Args:
        metric: Name of the metric.
        pairs: The two arms of each setting, the one that is claimed to be better first.
        direction: Whether lower or higher values are better.
        smallest_effect: Smallest pooled improvement that matters, in the metric's unit.
    """

    metric: str
    pairs: tuple[tuple[str, str], ...]
    direction: Direction
    smallest_effect: float

    def __post_init__(self) -> None:
        _check_direction(self.direction)
        _check_distinct(self.arms)
        if len(self.pairs) < 2 or not self.smallest_effect > 0:
            raise ValueError(
                f"pairs={self.pairs!r}, smallest_effect={self.smallest_effect!r}: expected two or "
                "more pairs of arms, and a number > 0"
            )

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms of all settings."""
        return tuple(arm for pair in self.pairs for arm in pair)

    def describe(self) -> str:
        """Return the rule in words."""
        names = "; ".join(f"{arm} than {over}" for arm, over in self.pairs)
        return (
            f"{self.direction} {self.metric} on average over the settings ({names}): "
            "random-effects meta-analysis with the interval of Hartung and Knapp, two-sided 5 %, "
            f"Holm within the family; an effect below {self.smallest_effect:g} refutes"
        )

    def _contrasts(self, values: Values) -> list[Contrast]:
        return [
            _improvement(values, self.metric, arm, over, self.direction) for arm, over in self.pairs
        ]

    def _tested(self, values: Values, contrasts: Sequence[Contrast]) -> dict[str, Any]:
        tests = [contrast.test() for contrast in contrasts]
        if min(test.standard_deviation for test in tests) <= 0:
            raise NoVerdict("a setting has the same difference in every seed")
        pooled = pooled_effect(
            [test.estimate for test in tests],
            [test.standard_deviation / math.sqrt(test.n) for test in tests],
        )
        half = student_quantile(1 - SIGNIFICANCE / 2, pooled.freedom) * pooled.standard_error
        interval = (pooled.estimate - half, pooled.estimate + half)
        squares = math.fsum(test.standard_deviation**2 for test in tests)
        settings = [contrast.evidence() for contrast in contrasts]
        return {
            "estimate": pooled.estimate,
            "interval": interval,
            "favours": pooled.estimate > 0,
            "p_for": min(1.0, 2 * pooled.one_sided_p()),
            "p_against": min(1.0, 2 * (1 - pooled.one_sided_p(self.smallest_effect))),
            "note": f"standard deviation of the effect between settings: {pooled.between:.2g}",
            "smallest_effect": self.smallest_effect,
            # Of the mean over settings of one seed. If settings differ, no number of seeds decides.
            "deviation": math.nan if pooled.between else math.sqrt(squares) / len(tests),
            "comparisons": (
                replace(
                    settings[0],
                    label="pooled improvement",
                    differences={},
                    estimate=pooled.estimate,
                    interval=interval,
                ),
                *settings,
            ),
        }


@dataclass(frozen=True)
class Recovers(Rule):
    """``arm`` recovers at least ``share`` of the change from one arm to another.

    With A, B = ``between`` the main contrast is ``(A - arm) - share·(A - B)`` for
    ``direction="lower"`` and its negative for ``"higher"``. It is linear in the metrics, so its
    paired t interval is exact. The change ``A - B`` itself must be shown to exist; otherwise the
    claim is *undecided*.

    * *supported*: change and contrast are both positive, each with p at most 0.05 in a two-sided
      paired t test (the larger p value counts; Holm over the family).
    * *refuted at this scale*: the change is positive and the contrast negative, each with p at
      most 0.05.

    The recovered share ``(A - arm)/(A - B)`` is reported with Fieller's interval. The smallest
    effect of interest is ``share`` of the measured change: an arm that recovers nothing is refuted.

    Args:
        metric: Name of the metric.
        arm: The arm that the claim says recovers the change.
        between: The arm without the change, and the arm with the full change.
        share: The share to recover, in (0, 1].
        direction: Whether the change lowers or raises the metric.
    """

    metric: str
    arm: str
    between: tuple[str, str]
    share: float
    direction: Direction = "lower"

    def __post_init__(self) -> None:
        _check_direction(self.direction)
        if len(self.between) != 2:
            raise ValueError(f"between must be two arms, got {self.between!r}")
        object.__setattr__(self, "between", tuple(self.between))
        _check_distinct(self.arms)
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be in (0, 1], got {self.share!r}")

    @property
    def arms(self) -> tuple[str, ...]:
        """``arm`` and the two arms of ``between``."""
        return (self.arm, *self.between)

    def describe(self) -> str:
        """Return the rule in words."""
        start, full = self.between
        change = "decrease" if self.direction == "lower" else "increase"
        return (
            f"{self.arm} recovers at least {100 * self.share:g} % of the {change} of "
            f"{self.metric} from {start} to {full} "
            "(paired t of a linear contrast, two-sided 5 %, Holm within the family)"
        )

    def _contrasts(self, values: Values) -> list[Contrast]:
        start, full = self.between
        sign = _sign(self.direction)
        weights = {start: sign * (1 - self.share), self.arm: -sign, full: sign * self.share}
        label = f"gain of {self.arm} - {self.share:g} × gain of {full}"
        # An arm with the weight 0 makes all contrasts use the same seeds.
        return [
            Contrast.of(values, self.metric, weights, label),
            Contrast.of(values, self.metric, {start: sign, full: -sign, self.arm: 0.0}),
            Contrast.of(values, self.metric, {start: sign, self.arm: -sign, full: 0.0}),
        ]

    def _tested(self, values: Values, contrasts: Sequence[Contrast]) -> dict[str, Any]:
        start, full = self.between
        contrast, change, gain = contrasts
        p_change = _p_above_zero(change)
        missing = f"the change from {start} to {full} is not shown: nothing to recover"
        return {
            "favours": contrast.mean > 0,
            "p_for": max(p_change, _p_above_zero(contrast)),
            "p_against": max(p_change, 1.0 if contrast.mean > 0 else contrast.test().p),
            "note": "" if p_change <= SIGNIFICANCE else missing,
            "smallest_effect": self.share * max(0.0, change.mean),
            "ratio_label": "share recovered",
            "ratio": gain.mean / change.mean if change.mean else math.nan,
            "ratio_interval": fieller_interval(gain.values, change.values, self.confidence),
        }


@dataclass(frozen=True)
class Equivalence(Rule):
    """``arm`` equals ``to`` in ``metric`` within a margin that is fixed before the run (TOST).

    The contrast is ``arm - to``, paired by seed. With ``relative=True`` the margin is a share of
    the mean of ``to``. The tests then use ``arm - (1 ± margin)·to``, which is linear and so
    accounts for the uncertainty of that mean; with a metric that is not positive, the claim is
    *undecided*.

    * *supported*: both one-sided paired t tests have p at most 0.05 (Holm over the
      family), so the 90 % interval is inside the margin.
    * *refuted at this scale*: the difference is shown to exceed the margin (two-sided, Holm).

    Args:
        metric: Name of the metric.
        arm: The arm that the claim says is equivalent.
        to: The arm that it is compared with.
        margin: Half width, in the metric's unit or as a share of the mean of ``to``.
        relative: Whether ``margin`` is a share.
    """

    metric: str
    arm: str
    to: str
    margin: float
    relative: bool = False
    confidence: ClassVar[float] = 1 - 2 * SIGNIFICANCE

    def __post_init__(self) -> None:
        _check_distinct(self.arms)
        if not (math.isfinite(self.margin) and self.margin > 0):
            raise ValueError(f"margin must be a number > 0, got {self.margin!r}")

    @property
    def arms(self) -> tuple[str, ...]:
        """The two arms."""
        return (self.arm, self.to)

    def describe(self) -> str:
        """Return the rule in words."""
        margin = f"{100 * self.margin:g} %" if self.relative else f"{self.margin:g}"
        return (
            f"{self.arm} is within ±{margin} of {self.to} in {self.metric} "
            "(TOST, 5 %, Holm within the family)"
        )

    def _contrasts(self, values: Values) -> list[Contrast]:
        return [Contrast.of(values, self.metric, {self.arm: 1.0, self.to: -1.0})]

    def _tested(self, values: Values, contrasts: Sequence[Contrast]) -> dict[str, Any]:
        (contrast,) = contrasts
        reference = [values[self.to][seed][self.metric] for seed in contrast.differences]
        if self.relative and min(reference) <= 0:
            raise NoVerdict(f"a relative margin needs a positive {self.metric}")
        mean = sum(reference) / len(reference)
        margin = self.margin * (mean if self.relative else 1.0)
        margins = [self.margin * (one if self.relative else 1.0) for one in reference]
        inside, outside = tost(contrast.values, margins)
        tested = {
            "favours": abs(contrast.mean) < margin,
            "p_for": inside,
            "p_against": min(1.0, 2 * outside),
            "smallest_effect": margin,
            "comparisons": (replace(contrast.evidence(self.confidence), margin=margin),),
        }
        if self.relative:
            tested |= {
                "ratio_label": "relative difference",
                "ratio": contrast.mean / mean,
                "ratio_interval": fieller_interval(contrast.values, reference, self.confidence),
            }
        return tested


def _improvement(
    values: Values, metric: str, arm: str, over: str, direction: Direction
) -> Contrast:
    sign = _sign(direction)
    return Contrast.of(values, metric, {over: sign, arm: -sign})


def _sign(direction: Direction) -> float:
    return 1.0 if direction == "lower" else -1.0


def _p_above_zero(contrast: Contrast) -> float:
    """Two-sided p value of a mean above zero; 1 if the mean is not above it."""
    return contrast.test().p if contrast.mean > 0 else 1.0


def _p_below(contrast: Contrast, bound: float) -> float:
    """Two-sided p value of a mean below ``bound``; 1 if the mean is not below it."""
    return min(1.0, 2 * one_sided_p([value - bound for value in contrast.values]))


def _check_direction(direction: str) -> None:
    if direction not in ("lower", "higher"):
        raise ValueError(f"direction must be 'lower' or 'higher', got {direction!r}")


def _check_distinct(arms: tuple[str, ...]) -> None:
    if len(set(arms)) != len(arms):
        raise ValueError(f"the arms of a rule must be distinct, got {arms!r}")
