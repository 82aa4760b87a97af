"""Writes a report to a folder."""

from pathlib import Path

from lightning_plugins.reports.atomic import write_text_atomically
from lightning_plugins.reports.evidence import Report
from lightning_plugins.reports.markdown import markdown_page
from lightning_plugins.reports.page import html_page


def write_report(report: Report, folder: str | Path) -> Path:
    """Write ``report.html`` and ``report.md`` into the folder; the path of the first.

    Raises:
        ImportError: if matplotlib is missing; nothing is written then.
    """
    html, markdown = html_page(report), markdown_page(report)
    path = Path(folder) / "report.html"
    write_text_atomically(path, html)
    write_text_atomically(path.with_suffix(".md"), markdown)
    return path
