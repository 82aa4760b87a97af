"""What every rule shares: its hash, its checks, and the making of a judgement."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from lightning_plugins.claims.canonical import sha256_of
from lightning_plugins.claims.contrast import Contrast
from lightning_plugins.claims.judgement import Comparison, Judgement, Verdict
from lightning_plugins.claims.statistics import (
    POWER,
    SIGNIFICANCE,
    minimal_detectable_effect,
    paired_interval,
)

Values = Mapping[str, Mapping[int, Mapping[str, float]]]
"""arm -> seed -> metric -> value."""

Direction = Literal["lower", "higher"]


class Rule(Protocol):
    """What a claim asks of its rule."""

    @property
    def metric(self) -> str:
        """The metric that is compared."""

    @property
    def arms(self) -> tuple[str, ...]:
        """Every arm the verdict rests on."""

    def sha256(self, claim: str = "") -> str:
        """Hash of the rule's canonical JSON with the claim's name."""

    def describe(self) -> str:
        """The rule in words."""

    def judge(self, values: Values) -> Judgement:
        """Apply the rule; alone in its family, as in the paper's regime."""


class HashedRule:
    """Gives a dataclass of plain fields its hash."""

    def sha256(self, claim: str = "") -> str:
        """Hash of the rule's canonical JSON with the claim's name, the test level and power."""
        fields = dataclasses.asdict(self)  # type: ignore[call-overload]
        kind = type(self).__name__
        levels = {"significance": SIGNIFICANCE, "power": POWER}
        return sha256_of({"claim": claim, "rule": kind, "fields": fields, **levels})


def judgement_of(
    contrasts: Sequence[Contrast],
    favours: bool,
    p_for: float,
    p_against: float,
    confidence: float = 1 - SIGNIFICANCE,
    note: str = "",
    margin: float | None = None,
    is_blocked: bool = False,
) -> Judgement:
    """A decided judgement; the first contrast is the headline."""
    tests = [paired_interval(one.values, confidence) for one in contrasts]
    comparisons = tuple(
        Comparison(one.label, one.differences, test.estimate, test.interval, margin)
        for one, test in zip(contrasts, tests, strict=True)
    )
    n = min(test.n for test in tests)
    identical = n >= 2 and not is_blocked and tests[0].standard_deviation == 0
    return Judgement(
        verdict=Verdict.INCONCLUSIVE,
        estimate=tests[0].estimate,
        interval=tests[0].interval,
        confidence=confidence,
        favours=favours,
        p_for=p_for,
        p_against=p_against,
        n=n,
        dropped=max(one.dropped for one in contrasts),
        minimal_detectable_effect=minimal_detectable_effect(
            tests[0].standard_deviation, tests[0].n
        ),
        comparisons=comparisons,
        note=note or ("the same difference in every seed" if identical else ""),
        blocked=is_blocked,
    ).decided()


def blocked(contrasts: Sequence[Contrast], confidence: float, why: str) -> Judgement:
    """A judgement that cannot be made, and why."""
    return judgement_of(
        contrasts, False, math.nan, math.nan, confidence=confidence, note=why, is_blocked=True
    )


def check_direction(direction: str) -> None:
    """Refuse a direction that is neither "lower" nor "higher"."""
    if direction not in ("lower", "higher"):
        raise ValueError(f"direction must be 'lower' or 'higher', got {direction!r}")


def check_distinct(arms: tuple[str, ...]) -> None:
    """Refuse a rule that compares an arm with itself."""
    if len(set(arms)) != len(arms):
        raise ValueError(f"the arms of a rule must be distinct, got {arms!r}")
