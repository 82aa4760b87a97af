"""The only place that writes HTML or imports matplotlib."""

from lightning_plugins.reports.report_data import (
    ClaimEvidence,
    ContrastEvidence,
    PaperEvidence,
    Report,
    Table,
)
from lightning_plugins.reports.writer import write_report

__all__ = [
    "ClaimEvidence",
    "ContrastEvidence",
    "PaperEvidence",
    "Report",
    "Table",
    "write_report",
]
