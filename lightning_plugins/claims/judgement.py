"""A verdict on one claim and the numbers that it rests on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from lightning_plugins.claims.statistics import SIGNIFICANCE, holm
from lightning_plugins.reports.report_data import ContrastEvidence


class Verdict(StrEnum):
    """Outcome of an experiment for a claim; :meth:`Judgement.decided` defines each."""

    SUPPORTED = "supported"
    NOT_SUPPORTED = "not supported"
    INCONCLUSIVE = "inconclusive"
    NOT_REPRODUCED = "not reproduced at this scale"


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

    def decided(self, in_paper_regime: bool = True) -> "Judgement":
        """Return a copy with the verdict computed from ``p_for`` and ``p_against``.

        * *inconclusive* if ``blocked``, or if neither p value is at most 0.05;
        * *not supported* if ``p_against`` is at most 0.05; outside the paper's regime this
          verdict is *not reproduced at this scale*;
        * *supported* if ``p_for`` is at most 0.05 and ``p_against`` is not.
        """
        against = Verdict.NOT_SUPPORTED if in_paper_regime else Verdict.NOT_REPRODUCED
        if self.blocked:
            verdict = Verdict.INCONCLUSIVE
        elif self.p_against <= SIGNIFICANCE:
            verdict = against
        elif self.p_for <= SIGNIFICANCE:
            verdict = Verdict.SUPPORTED
        else:
            verdict = Verdict.INCONCLUSIVE
        return replace(self, verdict=verdict)


def holm_adjusted(judgements: Sequence[Judgement]) -> list[Judgement]:
    """Adjust ``p_for`` and ``p_against`` over all claims of one paper by Holm's method.

    Claims that could not be judged count as p = 1: the family is the list of claims that was
    written before the run. Verdicts are not updated; call :meth:`Judgement.decided` afterwards.
    """
    p_for = holm([one.p_for for one in judgements])
    p_against = holm([one.p_against for one in judgements])
    return [
        one if math.isnan(one.p_for) else replace(one, p_for=a, p_against=b)
        for one, a, b in zip(judgements, p_for, p_against, strict=True)
    ]
