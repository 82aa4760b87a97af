"""A verdict on one claim and the numbers that it rests on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from lightning_plugins.claims.statistics import (
    PLANNED_POWER,
    SIGNIFICANCE,
    holm,
    level_of_look,
    pairs_for,
)
from lightning_plugins.reports.report_data import ContrastEvidence


class Verdict(StrEnum):
    """Outcome of an experiment for a claim; :meth:`Judgement.decided` defines each."""

    SUPPORTED = "supported"
    REFUTED = "refuted at this scale"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Judgement:
    """The result of applying a rule to measured values.

    Args:
        verdict: Outcome, see :meth:`decided`.
        estimate: Mean of the rule's main contrast, in the metric's unit.
        interval: t interval of ``estimate`` at ``confidence``.
        confidence: 0.95, or 0.90 for equivalence (the interval that corresponds to TOST).
        favours: Whether the estimate supports the claim.
        p_for: Two-sided p value of the evidence for the claim; 1 if the estimate is against it.
        p_against: The same for the evidence against the claim.
        n: Number of pairs (seeds with a finite value in every compared arm); the minimum over
            the contrasts.
        dropped: Seeds that were left out because a value was missing or not finite.
        minimal_detectable_effect: Smallest effect on the main contrast that is detected with
            80 % power at a two-sided level of 5 %.
        comparisons: The contrasts, the main one first.
        smallest_effect: Effect whose exclusion refutes the claim, in the metric's unit; 0 without
            one.
        deviation: Standard deviation of the contrast that varies most.
        family_size: Number of claims over which the p values were adjusted.
        ratio_label: Name of the ratio, such as "share recovered"; empty without one.
        ratio: The estimate as a ratio, for rules that define one.
        ratio_interval: Fieller's interval of ``ratio`` at ``confidence``.
        note: Why there is no verdict, or a remark for the reader; may be empty.
        blocked: Whether the rule cannot decide (too few pairs, best value on a grid's edge).
        regime: Data, model and training length of the measurement, in words.
    """

    verdict: Verdict
    estimate: float
    interval: tuple[float, float]
    confidence: float
    favours: bool
    p_for: float
    p_against: float
    n: int
    dropped: int
    minimal_detectable_effect: float
    comparisons: tuple[ContrastEvidence, ...]
    smallest_effect: float = 0.0
    deviation: float = math.nan
    family_size: int = 1
    ratio_label: str = ""
    ratio: float | None = None
    ratio_interval: tuple[float, float] | None = None
    note: str = ""
    blocked: bool = False
    regime: str = ""

    @property
    def p(self) -> float:
        """``p_for`` if ``favours``, otherwise ``p_against``; :func:`holm_adjusted` adjusts both."""
        return self.p_for if self.favours else self.p_against

    @property
    def pairs_needed(self) -> int | None:
        """Pairs that show the smallest effect, or refute it if there is none, with 90 % power.

        At the measured deviation, and with the p values adjusted for the whole family, as for its
        smallest. For equivalence: pairs that show that there is no difference. None if unknown or
        above 400.
        """
        is_equivalence = self.confidence < 1 - SIGNIFICANCE
        power = (1 + PLANNED_POWER) / 2 if is_equivalence else PLANNED_POWER
        level = SIGNIFICANCE * (2 if is_equivalence else 1) / self.family_size
        return pairs_for(self.smallest_effect, self.deviation, power, level)

    def decided(self) -> "Judgement":
        """Return a copy with the verdict computed from ``p_for`` and ``p_against``.

        * *undecided* if ``blocked``, or if neither p value is at most 0.05;
        * *refuted at this scale* if ``p_against`` is at most 0.05;
        * *supported* if ``p_for`` is at most 0.05 and ``p_against`` is not.
        """
        if not self.blocked and self.p_against <= SIGNIFICANCE:
            verdict = Verdict.REFUTED
        elif not self.blocked and self.p_for <= SIGNIFICANCE:
            verdict = Verdict.SUPPORTED
        else:
            verdict = Verdict.UNDECIDED
        return replace(self, verdict=verdict)


def holm_adjusted(judgements: Sequence[Judgement]) -> list[Judgement]:
    """Adjust ``p_for`` and ``p_against`` over the claims of one family by Holm's method.

    Claims that could not be judged count as p = 1: the family is the list of claims that was
    written before the run. Verdicts are not updated; call :meth:`Judgement.decided` afterwards.
    """
    p_for = holm([one.p_for for one in judgements])
    p_against = holm([one.p_against for one in judgements])
    return [
        replace(
            one,
            p_for=one.p_for if math.isnan(one.p_for) else a,
            p_against=one.p_against if math.isnan(one.p_for) else b,
            family_size=len(judgements),
        )
        for one, a, b in zip(judgements, p_for, p_against, strict=True)
    ]


def at_look(judgement: Judgement, looks: Sequence[int]) -> Judgement:
    """Return the judgement at one of several planned looks, with p values for all of them.

    A run may be stopped at any look. The p values are divided by the look's share of the level
    (:func:`~lightning_plugins.claims.statistics.level_of_look`). Without looks, nothing changes.
    """
    seeds = judgement.n + judgement.dropped
    if not looks or judgement.blocked:
        return judgement
    if seeds not in looks:
        planned = ", ".join(map(str, looks))
        return replace(
            judgement, note=f"{seeds} seeds; looks are planned at {planned}", blocked=True
        )
    level = level_of_look(looks, seeds)
    place = f"look {looks.index(seeds) + 1} of {len(looks)} at a level of {level:.2g}"
    return replace(
        judgement,
        p_for=min(1.0, judgement.p_for * SIGNIFICANCE / level),
        p_against=min(1.0, judgement.p_against * SIGNIFICANCE / level),
        note=f"{judgement.note}; {place}" if judgement.note else place,
    )
