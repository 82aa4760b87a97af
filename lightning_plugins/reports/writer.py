"""Writes a report to a folder."""

from pathlib import Path

from lightning_plugins.reports.atomic import write_text_atomically
from lightning_plugins.reports.markdown import markdown_page
from lightning_plugins.reports.page import html_page
from lightning_plugins.reports.raw_rows import rows_as_csv
from lightning_plugins.reports.report_data import Report


def write_report(report: Report, folder: str | Path) -> Path:
    """Write ``report.html``, ``report.md`` and ``rows/PAPER.csv``; the path of the first.

    Raises:
        ImportError: if matplotlib is missing; nothing is written then.
    """
    html, markdown = html_page(report), markdown_page(report)
    path = Path(folder) / "report.html"
    for paper in report.papers:
        rows = path.parent / "rows" / f"{paper.name}.csv"
        write_text_atomically(rows, rows_as_csv(paper.rows))
    write_text_atomically(path, html)
    write_text_atomically(path.with_suffix(".md"), markdown)
    return path
