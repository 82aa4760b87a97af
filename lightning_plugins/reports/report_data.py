"""What a report shows, as plain data; whoever has evidence fills these in."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Table:
    """Cells of text under a header, perhaps with a title above."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""


@dataclass(frozen=True)
class ContrastEvidence:
    """One paired contrast: seed -> difference, its mean and interval, an equivalence margin."""

    label: str
    differences: dict[int, float]
    estimate: float
    interval: tuple[float, float]
    margin: float | None = None


@dataclass(frozen=True)
class ClaimEvidence:
    """A claim and what stands behind its verdict.

    ``ours``, ``p``, ``detectable`` and ``cost`` are formatted; ``arms`` is arm -> seed -> value
    of the metric, for the figure; ``confidence`` is that of the intervals.
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
    arms: dict[str, dict[int, float]] = field(default_factory=dict)
    contrasts: tuple[ContrastEvidence, ...] = ()


@dataclass(frozen=True)
class ArmInterval:
    """An arm's values of a metric, one a seed, their mean and its interval."""

    arm: str
    values: tuple[float, ...]
    mean: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class OverviewEvidence:
    """The figure at the head of a paper, and what follows from it, a sentence each."""

    title: str
    metric: str
    caption: str
    arms: tuple[ArmInterval, ...]
    follows: tuple[str, ...]


@dataclass(frozen=True)
class PaperEvidence:
    """A paper: tables of arms, claims, failures in a line each, and raw rows (plain JSON data)."""

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
    """A whole report: ``command`` made it, ``generated`` is when, ``environment`` where."""

    title: str
    command: str
    generated: str
    environment: dict[str, str]
    papers: tuple[PaperEvidence, ...]


RULE_CHANGED = "rule changed after the run"
"""Shown beside the verdict of a claim whose rule is not the one stored with its results."""
