"""The rules that judge claims: superiority, recovery of a change, and equivalence.

A rule is plain data, is written before the run, and its hash is stored with each result.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from lightning_plugins.claims.fingerprints import sha256_of
from lightning_plugins.claims.judgement import Judgement, Verdict
from lightning_plugins.claims.statistics import (
    POWER,
    SIGNIFICANCE,
    fieller_interval,
    minimal_detectable_effect,
    one_sided_p,
    paired_interval,
    pooled_effect,
    student_quantile,
    tost,
)
from lightning_plugins.reports.report_data import ContrastEvidence

Values = Mapping[str, Mapping[int, Mapping[str, float]]]
"""Measured values: arm -> seed -> metric -> value."""

Direction = Literal["lower", "higher"]

_FEWEST_PAIRS = 2


class Rule(Protocol):
    """The interface of a rule."""

    @property
    def metric(self) -> str:
        """The compared metric."""

    @property
    def arms(self) -> tuple[str, ...]:
        """Every arm that the verdict depends on."""

    def sha256(self, claim: str = "") -> str:
        """Hash of the rule's canonical JSON together with the claim's name."""

    def describe(self) -> str:
        """The rule in words."""

    def judge(self, values: Values) -> Judgement:
        """Apply the rule without a correction for other claims, as in the paper's regime."""


class HashedRule:
    """Base class of the rules: hashes the fields of the dataclass."""

    def sha256(self, claim: str = "") -> str:
        """Hash of the fields, the rule's class, the claim's name, the test level and the power."""
        fields = dataclasses.asdict(self)  # type: ignore[call-overload]
        kind = type(self).__name__
        levels = {"significance": SIGNIFICANCE, "power": POWER}
        return sha256_of({"claim": claim, "rule": kind, "fields": fields, **levels})


@dataclass(frozen=True)
class Superiority(HashedRule):
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
    * *undecided*: otherwise, or with fewer than two pairs, or if a tuned value is on the edge
      of its grid.

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
        """The rule in words."""
        beaten = " and ".join((self.over, *self.rivals))
        floor = (
            f"; an effect below {self.smallest_effect:g} refutes" if self.smallest_effect else ""
        )
        return (
            f"{self.arm} has {self.direction} {self.metric} than {beaten} "
            f"(paired t, two-sided 5 %, Holm within the family{floor})"
        )

    def judge(self, values: Values) -> Judgement:
        """Apply the rule to measured values."""
        sign = 1.0 if self.direction == "lower" else -1.0
        contrasts = [
            _paired_contrast(values, self.metric, {other: sign, self.arm: -sign})
            for other in (self.over, *self.rivals)
        ]
        obstacle = _obstacle(values, self.arms, contrasts)
        if obstacle:
            return _blocked(contrasts, 1 - SIGNIFICANCE, obstacle)
        tests = [paired_interval(contrast.values) for contrast in contrasts]
        against = min(_two_sided_below(one.values, self.smallest_effect) for one in contrasts)
        missed = [
            contrast.label
            for contrast, test in zip(contrasts, tests, strict=True)
            if test.estimate <= 0 or test.p > SIGNIFICANCE
        ]
        note = f"not shown to be positive: {', '.join(missed)}" if missed and self.rivals else ""
        return _judgement(
            contrasts,
            favours=all(test.estimate > 0 for test in tests),
            p_for=max(test.p if test.estimate > 0 else 1.0 for test in tests),
            p_against=min(1.0, len(contrasts) * against),
            note=note,
            smallest_effect=self.smallest_effect,
        )


@dataclass(frozen=True)
class PooledSuperiority(HashedRule):
    """Over several settings, one kind of arm is better than another on average.

    The improvements of each setting are paired by seed; their means are pooled by a random-effects
    meta-analysis (:func:`~lightning_plugins.claims.statistics.pooled_effect`), so a setting with an
    effect of its own does not decide alone.

    * *supported*: the pooled improvement is positive with p at most 0.05 (two-sided, Holm over the
      family).
    * *refuted at this scale*: it is shown to be below ``smallest_effect`` in the same way.
    * *undecided*: otherwise, or if a setting has fewer than two pairs or equal differences in all.

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
        """The rule in words."""
        names = "; ".join(f"{arm} than {over}" for arm, over in self.pairs)
        return (
            f"{self.direction} {self.metric} on average over the settings ({names}): "
            "random-effects meta-analysis with the interval of Hartung and Knapp, two-sided 5 %, "
            f"Holm within the family; an effect below {self.smallest_effect:g} refutes"
        )

    def judge(self, values: Values) -> Judgement:
        """Apply the rule to measured values."""
        sign = 1.0 if self.direction == "lower" else -1.0
        contrasts = [
            _paired_contrast(values, self.metric, {over: sign, arm: -sign})
            for arm, over in self.pairs
        ]
        obstacle = _obstacle(values, self.arms, contrasts)
        tests = [paired_interval(contrast.values) for contrast in contrasts]
        if not obstacle and min(test.standard_deviation for test in tests) <= 0:
            obstacle = "a setting has the same difference in every seed"
        if obstacle:
            return _blocked(contrasts, 1 - SIGNIFICANCE, obstacle)
        pooled = pooled_effect(
            [test.estimate for test in tests],
            [test.standard_deviation / math.sqrt(test.n) for test in tests],
        )
        half = student_quantile(1 - SIGNIFICANCE / 2, pooled.freedom) * pooled.standard_error
        squares = math.fsum(test.standard_deviation**2 for test in tests)
        judged = _judgement(
            contrasts,
            favours=pooled.estimate > 0,
            p_for=min(1.0, 2 * pooled.one_sided_p()),
            p_against=min(1.0, 2 * (1 - pooled.one_sided_p(self.smallest_effect))),
            note=f"standard deviation of the effect between settings: {pooled.between:.2g}",
            smallest_effect=self.smallest_effect,
        )
        return dataclasses.replace(
            judged,
            estimate=pooled.estimate,
            interval=(pooled.estimate - half, pooled.estimate + half),
            # Of the mean over settings of one seed. If settings differ, no number of seeds decides.
            deviation=math.nan if pooled.between else math.sqrt(squares) / len(tests),
            comparisons=(
                ContrastEvidence(
                    "pooled improvement",
                    {},
                    pooled.estimate,
                    (pooled.estimate - half, pooled.estimate + half),
                ),
                *judged.comparisons,
            ),
        )


@dataclass(frozen=True)
class Recovers(HashedRule):
    """``arm`` recovers at least ``share`` of the change from one arm to another.

    With A, B = ``between`` the main contrast is ``(A - arm) - share·(A - B)`` for
    ``direction="lower"`` and its negative for ``"higher"``. It is linear in the metrics, so its
    paired t interval is exact. The change ``A - B`` itself must be shown to exist.

    * *supported*: change and contrast are both positive, each with p at most 0.05 in a two-sided
      paired t test (the larger p value counts; Holm over the family).
    * *refuted at this scale*: the change is positive and the contrast negative, each with p at
      most 0.05.
    * *undecided*: otherwise, in particular if the change is not shown; or with fewer than two
      pairs, or if a tuned value is on the edge of its grid.

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
        """The rule in words."""
        start, full = self.between
        change = "decrease" if self.direction == "lower" else "increase"
        return (
            f"{self.arm} recovers at least {100 * self.share:g} % of the {change} of "
            f"{self.metric} from {start} to {full} "
            "(paired t of a linear contrast, two-sided 5 %, Holm within the family)"
        )

    def judge(self, values: Values) -> Judgement:
        """Apply the rule to measured values."""
        start, full = self.between
        sign = 1.0 if self.direction == "lower" else -1.0
        contrast = _paired_contrast(
            values,
            self.metric,
            {start: sign * (1 - self.share), self.arm: -sign, full: sign * self.share},
            f"gain of {self.arm} - {self.share:g} × gain of {full}",
        )
        change = _paired_contrast(values, self.metric, {start: sign, full: -sign, self.arm: 0.0})
        gain = _paired_contrast(values, self.metric, {start: sign, self.arm: -sign, full: 0.0})
        obstacle = _obstacle(values, self.arms, [contrast])
        if obstacle:
            return _blocked([contrast, change, gain], 1 - SIGNIFICANCE, obstacle)
        of_contrast, of_change = paired_interval(contrast.values), paired_interval(change.values)
        p_change = of_change.p if of_change.estimate > 0 else 1.0
        favours = of_contrast.estimate > 0
        missing = f"the change from {start} to {full} is not shown: nothing to recover"
        result = _judgement(
            [contrast, change, gain],
            favours=favours,
            p_for=max(p_change, of_contrast.p if favours else 1.0),
            p_against=max(p_change, 1.0 if favours else of_contrast.p),
            note="" if p_change <= SIGNIFICANCE else missing,
            smallest_effect=self.share * max(0.0, of_change.estimate),
        )
        return dataclasses.replace(
            result,
            ratio_label="share recovered",
            ratio=gain.mean / change.mean if change.mean else math.nan,
            ratio_interval=fieller_interval(gain.values, change.values, 1 - SIGNIFICANCE),
        )


@dataclass(frozen=True)
class Equivalence(HashedRule):
    """``arm`` equals ``to`` in ``metric`` within a margin that is fixed before the run (TOST).

    The contrast is ``arm - to``, paired by seed. With ``relative=True`` the margin is a share of
    the mean of ``to``. The tests then use ``arm - (1 ± margin)·to``, which is linear and so
    accounts for the uncertainty of that mean.

    * *supported*: both one-sided paired t tests have p at most 0.05 (Holm over the
      family), so the 90 % interval is inside the margin.
    * *refuted at this scale*: the difference is shown to exceed the margin (two-sided, Holm).
    * *undecided*: otherwise, or with fewer than two pairs, or if a tuned value is on the edge
      of its grid, or for a relative margin of a metric that is not positive.

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

    def __post_init__(self) -> None:
        _check_distinct(self.arms)
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
            "(TOST, 5 %, Holm within the family)"
        )

    def judge(self, values: Values) -> Judgement:
        """Apply the rule to measured values."""
        contrast = _paired_contrast(values, self.metric, {self.arm: 1.0, self.to: -1.0})
        confidence = 1 - 2 * SIGNIFICANCE
        obstacle = _obstacle(values, self.arms, [contrast])
        reference = [values[self.to][seed][self.metric] for seed in contrast.differences]
        if not obstacle and self.relative and min(reference) <= 0:
            obstacle = f"a relative margin needs a positive {self.metric}"
        if obstacle:
            return _blocked([contrast], confidence, obstacle)
        margin = self.margin * (sum(reference) / len(reference) if self.relative else 1.0)
        margins = [self.margin * (one if self.relative else 1.0) for one in reference]
        inside, outside = tost(contrast.values, margins)
        result = _judgement(
            [contrast],
            favours=abs(contrast.mean) < margin,
            p_for=inside,
            p_against=min(1.0, 2 * outside),
            confidence=confidence,
            margin=margin,
            smallest_effect=margin,
        )
        if not self.relative:
            return result
        return dataclasses.replace(
            result,
            ratio_label="relative difference",
            ratio=contrast.mean / (sum(reference) / len(reference)),
            ratio_interval=fieller_interval(contrast.values, reference, confidence),
        )


@dataclass(frozen=True)
class _Contrast:
    """``Σ weight·metric`` over arms, for each seed with a finite value in all of them."""

    label: str
    differences: dict[int, float]
    dropped: int

    @property
    def values(self) -> list[float]:
        return list(self.differences.values())

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / len(self.values) if self.values else math.nan


def _paired_contrast(
    values: Values, metric: str, weights: Mapping[str, float], label: str = ""
) -> _Contrast:
    """Return the contrast; seeds without a finite value in every arm are dropped and counted.

    An arm with weight zero must also have the seed, so that several contrasts of the same arms
    use the same seeds. The label defaults to "positive arm - negative arm".
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
    return _Contrast(label, differences, len(seeds) - len(differences))


def _obstacle(values: Values, arms: Sequence[str], contrasts: Sequence[_Contrast]) -> str:
    """Return why no verdict is possible, or an empty string."""
    for arm in arms:
        for metrics in values.get(arm, {}).values():
            if metrics.get("on_grid_edge", 0.0) > 0:
                return f"the best value of {arm} is on the edge of its grid"
    fewest = min(len(contrast.differences) for contrast in contrasts)
    if fewest < _FEWEST_PAIRS:
        return f"{fewest} usable pair{'s' if fewest != 1 else ''}; at least {_FEWEST_PAIRS} needed"
    return ""


def _judgement(
    contrasts: Sequence[_Contrast],
    favours: bool,
    p_for: float,
    p_against: float,
    confidence: float = 1 - SIGNIFICANCE,
    note: str = "",
    margin: float | None = None,
    is_blocked: bool = False,
    smallest_effect: float = 0.0,
) -> Judgement:
    """Build a judgement with its verdict; the first contrast is the main one."""
    tests = [paired_interval(one.values, confidence) for one in contrasts]
    main = tests[0]
    n = min(test.n for test in tests)
    identical = n >= 2 and not is_blocked and main.standard_deviation == 0
    return Judgement(
        verdict=Verdict.UNDECIDED,
        estimate=main.estimate,
        interval=main.interval,
        confidence=confidence,
        favours=favours,
        p_for=p_for,
        p_against=p_against,
        n=n,
        dropped=max(one.dropped for one in contrasts),
        minimal_detectable_effect=minimal_detectable_effect(main.standard_deviation, main.n),
        comparisons=tuple(
            ContrastEvidence(one.label, one.differences, test.estimate, test.interval, margin)
            for one, test in zip(contrasts, tests, strict=True)
        ),
        smallest_effect=smallest_effect,
        deviation=max(test.standard_deviation for test in tests),
        note=note or ("the same difference in every seed" if identical else ""),
        blocked=is_blocked,
    ).decided()


def _blocked(contrasts: Sequence[_Contrast], confidence: float, why: str) -> Judgement:
    return _judgement(
        contrasts, False, math.nan, math.nan, confidence=confidence, note=why, is_blocked=True
    )


def _two_sided_below(values: list[float], bound: float) -> float:
    """Two-sided p value of a mean below ``bound``; 1 if the mean is not below it."""
    return min(1.0, 2 * one_sided_p([value - bound for value in values]))


def _check_direction(direction: str) -> None:
    if direction not in ("lower", "higher"):
        raise ValueError(f"direction must be 'lower' or 'higher', got {direction!r}")


def _check_distinct(arms: tuple[str, ...]) -> None:
    if len(set(arms)) != len(arms):
        raise ValueError(f"the arms of a rule must be distinct, got {arms!r}")
