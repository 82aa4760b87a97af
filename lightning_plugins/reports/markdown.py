"""A report as Markdown, for a terminal or a pull request."""

import math
import re
from collections.abc import Iterable, Sequence

from lightning_plugins.reports.page import OURS, SUMMARY_HEADER
from lightning_plugins.reports.report_data import (
    RULE_CHANGED,
    ArmInterval,
    ClaimEvidence,
    OverviewEvidence,
    Report,
)

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~!$])")
# A mention notifies a person or team, and a bare address becomes a link, on GitHub and GitLab.
_MENTION = re.compile(r"@(?=\w)")
_BARE_LINK = re.compile(r"(?:(?<=\bhttp)|(?<=\bhttps)|(?<=\bftp))://|\bwww\.", re.IGNORECASE)
_LIST_OR_RULE = re.compile(r"^(\d*)([-+=.)])(?=[-=\s]|$)")


def markdown_page(report: Report) -> str:
    """Format the report's tables and facts. All text is escaped, so no field becomes markup."""
    lines = [f"# {_escaped(report.title)}", "", *map(_paragraph, report.meaning)]
    lines += ["", f"Command: {_code(report.command)}", _paragraph(report.generated), ""]
    for is_ours in (False, True):
        rows = [
            (p.name, one.name, one.paper_figure, one.ours, _verdict(one), str(one.n), one.cost)
            for p in report.papers
            for one in p.claims
            if one.is_ours == is_ours
        ]
        lines += ["", f"{OURS}:", ""] if rows and is_ours else []
        lines += _table(SUMMARY_HEADER, rows) if rows else []
    for paper in report.papers:
        lines += ["", f"## {_escaped(paper.title)}", ""]
        lines += [_paragraph(f"{paper.citation} · scale {paper.scale}"), ""]
        lines += _overview(paper.overview) if paper.overview is not None else []
        for table in paper.tables:
            lines += [*([_paragraph(table.title), ""] if table.title else [])]
            lines += [*_table(table.header, table.rows), ""]
        lines += [*(f"- Failed: {_escaped(failure)}" for failure in paper.failures)]
        for claim in paper.claims:
            lines += ["", f"### {_escaped(claim.name)}", "", _paragraph(claim.statement), ""]
            lines += [f"- {key}: {_escaped(value)}" for key, value in _facts(claim).items()]
            lines += [f"- rule hash: {_code(claim.rule_sha256)}"]
    lines += ["", "## Environment", ""]
    lines += [f"- {_escaped(key)}: {_escaped(value)}" for key, value in report.environment.items()]
    return "\n".join(lines) + "\n"


def _overview(overview: OverviewEvidence) -> list[str]:
    def row(arm: ArmInterval) -> tuple[str, ...]:
        bounds = (f"{bound:.1f}" if math.isfinite(bound) else "-" for bound in arm.interval)
        return (arm.arm, f"{arm.mean:.1f}", *bounds, str(len(arm.values)))

    header = ("arm", overview.metric, "from", "to", "n")
    lines = [_paragraph(overview.title), "", *_table(header, map(row, overview.arms)), ""]
    lines += [_paragraph(overview.caption), "", "Conclusions:", ""]
    return [*lines, *(f"- {_escaped(sentence)}" for sentence in overview.conclusions), ""]


def _facts(claim: ClaimEvidence) -> dict[str, str]:
    facts = {
        "verdict": _verdict(claim),
        "ours": claim.ours,
        "the paper": f"{claim.paper_figure} ({claim.source})",
        "rule": claim.rule,
        "family": claim.family,
        "smallest effect": claim.decision,
        "regime": claim.regime,
        "pairs": f"{claim.n} used, {claim.dropped} dropped",
        "p, Holm-adjusted": claim.p,
        "detectable": f"{claim.detectable} (80 % power, two-sided 5 %)",
        "note": claim.note,
    }
    return {key: value for key, value in facts.items() if value}


def _verdict(claim: ClaimEvidence) -> str:
    shown = claim.shown_verdict
    return f"{shown} ({RULE_CHANGED})" if claim.rule_changed else shown


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(_escaped(cell) for cell in cells) + " |"

    return [line(header), "|" + " --- |" * len(header), *(line(row) for row in rows)]


def _escaped(text: str) -> str:
    escaped = _SPECIAL.sub(r"\\\1", " ".join(text.split())).replace("&", "&amp;")
    escaped = _MENTION.sub("@\u2060", escaped)  # an invisible word joiner
    return _BARE_LINK.sub(
        lambda found: found[0].replace(".", "&#46;").replace(":", "&#58;"), escaped
    )


def _paragraph(text: str) -> str:
    return _LIST_OR_RULE.sub(r"\1\\\2", _escaped(text))


def _code(text: str) -> str:
    return f"`{' '.join(text.split()).replace('`', chr(39))}`"
