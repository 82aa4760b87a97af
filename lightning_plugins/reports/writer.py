"""Writes reports, and other files, atomically."""

import os
from pathlib import Path
from uuid import uuid4

from lightning_plugins.reports.markdown import markdown_page
from lightning_plugins.reports.page import html_page
from lightning_plugins.reports.raw_rows import rows_as_csv
from lightning_plugins.reports.report_data import Report


def write_report(report: Report, folder: str | Path) -> Path:
    """Write ``report.html``, ``report.md`` and ``rows/PAPER.csv``.

    Returns:
        The path of ``report.html``.

    Raises:
        ImportError: matplotlib is not installed. Nothing is written in this case.
    """
    html, markdown = html_page(report), markdown_page(report)
    path = Path(folder) / "report.html"
    for paper in report.papers:
        rows = path.parent / "rows" / f"{paper.name}.csv"
        write_text_atomically(rows, rows_as_csv(paper.rows))
    write_text_atomically(path, html)
    write_text_atomically(path.with_suffix(".md"), markdown)
    return path


def write_text_atomically(path: Path, text: str) -> None:
    """Write the text in UTF-8 with :func:`write_bytes_atomically`."""
    write_bytes_atomically(path, text.encode("utf-8"))


def write_bytes_atomically(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write to a temporary file in the same folder, then rename it to ``path``.

    An interrupted write leaves the previous file unchanged. The permissions follow the umask, or
    allow only the owner to read and write if the file is ``private``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:80]}.{uuid4().hex}")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with open(os.open(temporary, flags, 0o600 if private else 0o666), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
