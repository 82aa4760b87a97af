"""The content of a claims report as plain data."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Table:
    """Text cells under a header, with an optional title."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""


@dataclass(frozen=True)
class ContrastEvidence:
    """A paired contrast: differences by seed, their mean with its interval, and the margin.

    ``margin`` is the half width of the equivalence margin around zero, or None.
    """

    label: str
    differences: dict[int, float]
    estimate: float
    interval: tuple[float, float]
    margin: float | None = None


@dataclass(frozen=True)
class ClaimEvidence:
    """A claim, its verdict, and the numbers behind the verdict.

    ``ours``, ``p``, ``detectable`` and ``cost`` are formatted texts. ``arms`` maps arm -> seed ->
    value of the metric, for the figure. ``confidence`` is the confidence level of the intervals.
    ``is_ours``: the paper does not make the claim. ``needed``: what decides an undecided claim.
    """

    name: str
    statement: str
    paper_figure: str
    source: str
    rule: str
    rule_sha256: str
    rule_changed: bool
    verdict: str
    ours: str
    p: str
    n: int
    dropped: int
    detectable: str
    regime: str
    cost: str
    note: str = ""
    metric: str = ""
    confidence: float = 0.95
    is_ours: bool = False
    smallest_effect: float = 0.0
    needed: str = ""
    arms: dict[str, dict[int, float]] = field(default_factory=dict)
    contrasts: tuple[ContrastEvidence, ...] = ()

    @property
    def shown_verdict(self) -> str:
        """The verdict with what an undecided claim needs, and the seeds left out."""
        shown = self.verdict
        if shown == "undecided" and self.needed:
            shown += f", {self.needed}"
        if not self.dropped:
            return shown
        seeds = self.n + self.dropped
        return f"{shown} ({self.dropped} of {seeds} seeds have no value and are left out)"

    @property
    def family(self) -> str:
        """The family of tests in words."""
        return "ours: not claimed in the paper" if self.is_ours else "claims of the paper"

    @property
    def decision(self) -> str:
        """The smallest effect of interest in words, or an empty text."""
        return f"{self.smallest_effect:.3g}" if self.smallest_effect else ""


@dataclass(frozen=True)
class ArmInterval:
    """An arm's values of a metric, one per seed, with their mean and its interval."""

    arm: str
    values: tuple[float, ...]
    mean: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class OverviewEvidence:
    """The figure at the top of a paper, and one sentence per conclusion."""

    title: str
    metric: str
    caption: str
    arms: tuple[ArmInterval, ...]
    conclusions: tuple[str, ...]


@dataclass(frozen=True)
class PaperEvidence:
    """A paper: tables of arms, claims, one line per failure, and raw rows (plain JSON data)."""

    name: str
    title: str
    citation: str
    scale: str
    tables: tuple[Table, ...]
    claims: tuple[ClaimEvidence, ...]
    failures: tuple[str, ...] = ()
    rows: tuple[dict[str, Any], ...] = ()
    overview: OverviewEvidence | None = None


@dataclass(frozen=True)
class Report:
    """A report with its command line, the time of its generation, and the versions used."""

    title: str
    command: str
    generated: str
    environment: dict[str, str]
    papers: tuple[PaperEvidence, ...]

    @property
    def meaning(self) -> tuple[str, ...]:
        """What the report says, in three sentences: the counts, and how to read a verdict."""
        verdicts = Counter(claim.verdict for paper in self.papers for claim in paper.claims)
        if not verdicts:
            return ()
        counts = ", ".join(f"{number} {verdict}" for verdict, number in verdicts.most_common())
        return (
            f"Of {verdicts.total()} claims: {counts}.",
            "Each verdict was computed from pairs of runs with the same seed, by a rule that was "
            "written before the runs.",
            "Undecided means that these seeds decide neither way at this scale; each claim states "
            "the effect that they could detect.",
        )


RULE_CHANGED = "rule changed after the run"
"""Shown beside the verdict of a claim whose rule is not the one stored with its results."""
