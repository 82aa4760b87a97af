"""The report as one self-contained HTML page."""

import base64
from collections.abc import Callable, Iterable

from lightning_plugins.reports.claim_figures import overview_figure, paired_figure
from lightning_plugins.reports.html import Element, page
from lightning_plugins.reports.raw_rows import raw_table, rows_as_csv, rows_as_json
from lightning_plugins.reports.report_data import (
    RULE_CHANGED,
    ClaimEvidence,
    OverviewEvidence,
    PaperEvidence,
    Report,
    Table,
)

_VERDICT_CLASS = {
    "supported": "supported",
    "refuted at this scale": "refuted",
}
OURS = "Our controls, rivals and extensions, which the papers do not claim"
SUMMARY_HEADER = ("paper", "claim", "the paper's figure", "ours", "verdict", "n", "cost")


def html_page(report: Report) -> str:
    """Return the report as HTML without external resources or scripts, for light and dark mode."""
    return page(
        report.title,
        *(Element("p", sentence) for sentence in report.meaning),
        Element("p", "Command: ", Element("code", report.command), class_="soft"),
        Element("p", report.generated, class_="soft"),
        *_summaries(report),
        *(part for paper in report.papers for part in _paper(paper)),
        Element("h2", "Environment"),
        _definitions(report.environment.items()),
    )


def _summaries(report: Report) -> Iterable[Element]:
    """The claims of the papers, then ours: two families of tests."""
    for is_ours in (False, True):
        if rows := _summary_rows(report, is_ours):
            yield _scrolling(SUMMARY_HEADER, rows, OURS if is_ours else "")


def _summary_rows(report: Report, is_ours: bool) -> list[Element]:
    return [
        Element(
            "tr",
            Element("td", paper.name),
            Element("td", Element("a", claim.name, href=f"#{_anchor(paper, place)}")),
            Element("td", claim.paper_figure),
            Element("td", claim.ours),
            Element("td", _verdict(claim), _rule_warning(claim)),
            Element("td", claim.n),
            Element("td", claim.cost),
        )
        for paper in report.papers
        for place, claim in enumerate(paper.claims)
        if claim.is_ours == is_ours
    ]


def _paper(paper: PaperEvidence) -> Iterable[Element]:
    yield Element("h2", paper.title)
    yield Element("p", f"{paper.citation} · scale {paper.scale}", class_="soft")
    if paper.overview is not None and paper.overview.arms:
        yield _overview(paper.overview)
    for table in paper.tables:
        yield _plain_table(table)
    for failure in paper.failures:
        yield Element("p", f"Failed: {failure}", class_="warning")
    for place, claim in enumerate(paper.claims):
        yield _claim(claim, _anchor(paper, place))
    yield Element(
        "details",
        Element("summary", f"Raw rows ({len(paper.rows)})"),
        Element(
            "p",
            _download(rows_as_json(paper.rows), "application/json", f"{paper.name}.json"),
            " · ",
            _download(rows_as_csv(paper.rows), "text/csv", f"{paper.name}.csv"),
        ),
        _plain_table(raw_table(paper.rows)),
    )


def _claim(claim: ClaimEvidence, anchor: str) -> Element:
    facts = {
        "verdict": _verdict(claim),
        "ours": claim.ours,
        "the paper": f"{claim.paper_figure} ({claim.source})",
        "rule": claim.rule,
        "family": claim.family,
        "smallest effect": claim.decision or "none",
        "regime": claim.regime,
        "pairs": f"{claim.n} used, {claim.dropped} dropped",
        "p, Holm-adjusted": claim.p,
        "detectable": f"{claim.detectable} (80 % power, two-sided 5 %)",
        "cost": claim.cost,
        "rule hash": Element("code", claim.rule_sha256),
    }
    return Element(
        "section",
        Element("h3", claim.name),
        Element("p", claim.statement),
        _rule_warning(claim),
        Element("p", f"Note: {claim.note}.", class_="soft") if claim.note else None,
        _figure(claim),
        _definitions(facts.items()),
        class_="claim",
        id=anchor,
    )


def _overview(overview: OverviewEvidence) -> Element:
    values = "; ".join(f"{arm.arm} {arm.mean:.3g}" for arm in overview.arms)
    return Element(
        "section",
        Element("h3", overview.title),
        _picture(lambda theme: overview_figure(overview, theme), f"{overview.metric}: {values}"),
        Element("p", overview.caption, class_="soft"),
        Element("p", "Conclusions:"),
        Element("ul", *(Element("li", sentence) for sentence in overview.conclusions)),
        class_="claim",
    )


def _figure(claim: ClaimEvidence) -> Element | None:
    if not claim.contrasts or not any(claim.arms.values()):
        return None
    contrast = claim.contrasts[0]
    return _picture(
        lambda theme: paired_figure(claim, theme),
        f"{claim.metric} by arm and seed; {contrast.label}: {claim.ours}",
    )


def _picture(drawn: Callable[[str], bytes], alt: str) -> Element:
    light, dark = (_data_uri(drawn(theme), "image/svg+xml") for theme in ("light", "dark"))
    return Element(
        "picture",
        Element("source", srcset=dark, media="(prefers-color-scheme: dark)"),
        Element("img", src=light, alt=alt),
    )


def _verdict(claim: ClaimEvidence) -> Element:
    kind = _VERDICT_CLASS.get(claim.verdict, "open")
    return Element("span", claim.shown_verdict, class_=f"verdict {kind}")


def _rule_warning(claim: ClaimEvidence) -> Element | None:
    return Element("span", RULE_CHANGED, class_="warning") if claim.rule_changed else None


def _plain_table(table: Table) -> Element:
    rows = [Element("tr", *(Element("td", cell) for cell in row)) for row in table.rows]
    return _scrolling(table.header, rows, table.title, class_="arms")


def _scrolling(
    header: Iterable[str], rows: list[Element], title: str = "", **attributes: object
) -> Element:
    caption = Element("caption", title) if title else None
    head = Element("thead", Element("tr", *(Element("th", label) for label in header)))
    return Element(
        "div",
        Element("table", caption, head, Element("tbody", *rows), **attributes),
        class_="scroll",
    )


def _definitions(items: Iterable[tuple[str, object]]) -> Element:
    pairs = (part for key, value in items for part in (Element("dt", key), Element("dd", value)))
    return Element("dl", *pairs)


def _download(text: str, kind: str, name: str) -> Element:
    return Element("a", name, href=_data_uri(text.encode(), kind), download=name)


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _anchor(paper: PaperEvidence, place: int) -> str:
    return f"{paper.name}-{place + 1}"
