"""The report as aligned plain text, for a terminal."""

import textwrap
from collections.abc import Sequence

from lightning_plugins.reports.report_data import RULE_CHANGED, ClaimEvidence, PaperEvidence, Table

_WIDTH = 100


def paper_lines(paper: PaperEvidence) -> list[str]:
    """Return the tables of arms, then each claim with its verdict; at most 100 characters wide."""
    lines = ["", *textwrap.wrap(f"{paper.title} (scale {paper.scale})", _WIDTH)]
    for table in paper.tables:
        lines += ["", *([table.title] if table.title else []), *aligned(table)]
    if paper.claims:
        lines += ["", "mean ± standard deviation over n seeds"]
    for claim in sorted(paper.claims, key=lambda claim: claim.is_ours):
        lines += _claim_lines(claim)
    for failure in paper.failures:
        lines += textwrap.wrap(f"FAILED {failure}", _WIDTH, subsequent_indent="  ")
    return lines


def aligned(table: Table) -> list[str]:
    """Return the table in columns two spaces apart, without trailing spaces.

    Columns that do not fit into 100 characters follow below, with the first column repeated.
    """
    rows: list[Sequence[str]] = [table.header, *table.rows]
    widths = [max(len(row[place]) for row in rows) for place in range(len(table.header))]
    lines: list[str] = []
    for places in _parts(widths):
        part = [
            "  ".join(row[place].ljust(widths[place]) for place in places).rstrip() for row in rows
        ]
        lines += [*([""] if lines else []), part[0], "-" * max(map(len, part)), *part[1:]]
    return lines


def _parts(widths: Sequence[int]) -> list[list[int]]:
    parts = [[0]]
    for place in range(1, len(widths)):
        width = sum(widths[one] + 2 for one in parts[-1]) + widths[place]
        if width > _WIDTH and len(parts[-1]) > 1:
            parts.append([0])
        parts[-1].append(place)
    return parts


def _claim_lines(claim: ClaimEvidence) -> list[str]:
    changed = f" ({RULE_CHANGED})" if claim.rule_changed else ""
    facts = {
        "claim": claim.statement,
        "paper": f"{claim.paper_figure} ({claim.source})",
        "ours": f"{claim.ours}, p {claim.p}, n {claim.n}, detectable {claim.detectable}",
        "family": claim.family,
        "regime": claim.regime,
        "note": claim.note,
    }
    left_out = claim.shown_verdict.removeprefix(claim.verdict)
    lines = ["", f"{claim.verdict.upper()}{left_out}{changed}: {claim.name}"]
    for label, text in facts.items():
        start = f"  {label:<7} "
        if text:
            lines += textwrap.wrap(start + text, _WIDTH, subsequent_indent=" " * len(start))
    return lines
