"""A verdict and everything it rests on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from lightning_plugins.claims.statistics import SIGNIFICANCE, holm


class Verdict(StrEnum):
    """What an experiment says about a claim; :meth:`Judgement.decided` states when."""

    SUPPORTED = "supported"
    NOT_SUPPORTED = "not supported"
    INCONCLUSIVE = "inconclusive"
    NOT_REPRODUCED = "not reproduced at this scale"


@dataclass(frozen=True)
class Comparison:
    """One paired contrast of a rule, in the metric's unit.

    Args:
        label: which arms, in words ("sgd - late_sam").
        differences: seed -> contrast.
        estimate: mean of the contrast.
        interval: its t interval.
        margin: half width of the equivalence margin around zero, or None.
    """

    label: str
    differences: dict[int, float]
    estimate: float
    interval: tuple[float, float]
    margin: float | None = None


@dataclass(frozen=True)
class Judgement:
    """A rule applied to numbers.

    Args:
        verdict: see :meth:`decided`.
        estimate: mean of the rule's headline contrast, in the metric's unit.
        interval: its t interval at ``confidence``.
        confidence: 0.95, or 0.90 for equivalence (the interval that TOST inverts).
        favours: whether the estimate lies on the claim's side.
        p_for: two-sided p of the evidence for the claim (1 where the estimate is against it).
        p_against: the same for the evidence against it.
        p: ``p_for`` if ``favours`` else ``p_against``; after :func:`holm_adjusted` both, and so
            this, are adjusted over the claims of the paper.
        n: pairs (seeds with a finite value in every arm compared); the fewest over the contrasts.
        dropped: seeds that some arm has and that were left out (missing or not finite).
        minimal_detectable_effect: of the headline contrast, at 80 % power, two-sided 5 %.
        comparisons: the contrasts, the headline first.
        ratio_label, ratio, ratio_interval: the estimate as a ratio where the rule has one
            ("share recovered"), with Fieller's interval at ``confidence``; else None.
        note: what stands in the way of a verdict, or what a reader must know; may be empty.
        blocked: the rule cannot decide (too few pairs, a grid's edge).
        regime: the regime of the claim in words.
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
    comparisons: tuple[Comparison, ...]
    ratio_label: str = ""
    ratio: float | None = None
    ratio_interval: tuple[float, float] | None = None
    note: str = ""
    blocked: bool = False
    regime: str = ""

    @property
    def p(self) -> float:
        """The p value behind the verdict's direction."""
        return self.p_for if self.favours else self.p_against

    def decided(self, in_paper_regime: bool = True) -> "Judgement":
        """The same judgement with its verdict computed from ``p_for`` and ``p_against``.

        * *inconclusive* if ``blocked``, or if neither p value is at most 0.05;
        * *not supported* if ``p_against`` is at most 0.05, and then, outside the paper's regime,
          *not reproduced at this scale*;
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
    """The judgements of one paper with ``p_for`` and ``p_against`` each adjusted by Holm.

    Claims that could not be judged count in the family (their p is 1): the family is the list
    written down before the run. Verdicts are left for :meth:`Judgement.decided`.
    """
    p_for = holm([one.p_for for one in judgements])
    p_against = holm([one.p_against for one in judgements])
    return [
        one if math.isnan(one.p_for) else replace(one, p_for=a, p_against=b)
        for one, a, b in zip(judgements, p_for, p_against, strict=True)
    ]
