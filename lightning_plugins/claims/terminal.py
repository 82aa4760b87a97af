"""A paper's table and verdicts as plain aligned text."""

import textwrap
from collections.abc import Sequence

from lightning_plugins.reports.evidence import RULE_CHANGED, ClaimEvidence, PaperEvidence, Table

_WIDTH = 100


def paper_lines(paper: PaperEvidence) -> list[str]:
    """The table of arms, then each claim with its verdict."""
    lines = ["", f"{paper.title} (scale {paper.scale})", "", *aligned(paper.table)]
    if paper.claims:
        lines += ["", "mean ± standard deviation over n seeds"]
    for claim in paper.claims:
        lines += _claim_lines(claim)
    lines += [f"FAILED {failure}" for failure in paper.failures]
    return lines


def aligned(table: Table) -> list[str]:
    """The table in columns two spaces apart, without trailing spaces."""
    rows: list[Sequence[str]] = [table.header, *table.rows]
    widths = [max(len(row[place]) for row in rows) for place in range(len(table.header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def _claim_lines(claim: ClaimEvidence) -> list[str]:
    changed = f" ({RULE_CHANGED})" if claim.rule_changed else ""
    facts = {
        "claim": claim.statement,
        "paper": f"{claim.paper_figure} ({claim.source})",
        "ours": f"{claim.ours}, p {claim.p}, n {claim.n}, detectable {claim.detectable}",
        "regime": claim.regime,
        "note": claim.note,
    }
    lines = ["", f"{claim.verdict.upper()}{changed}: {claim.name}"]
    for label, text in facts.items():
        start = f"  {label:<7} "
        if text:
            lines += textwrap.wrap(start + text, _WIDTH, subsequent_indent=" " * len(start))
    return lines
