"""Raw rows as a table, as JSON and as CSV."""

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import Any

from lightning_plugins.reports.report_data import Table

# Spreadsheets also read the full-width forms, as some East Asian keyboards write them.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def raw_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return all rows; the columns are the union over the rows in order of appearance."""
    header = _header(rows)
    return Table(header, tuple(tuple(_text(row.get(key)) for key in header) for row in rows))


def rows_as_json(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as JSON; NaN and infinity become null."""
    return json.dumps([_finite(row) for row in rows], indent=1, allow_nan=False) + "\n"


def rows_as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as CSV; text that a spreadsheet reads as a formula gets an apostrophe."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)  # with \r\n as line end, so that a lone \r is quoted
    table = raw_table(rows)
    writer.writerow(map(no_formula, table.header))
    for row in rows:
        cells = ((row.get(key), _text(row.get(key))) for key in table.header)
        writer.writerow(no_formula(text) if isinstance(x, str) else text for x, text in cells)
    return buffer.getvalue()


def _header(rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key for row in rows for key in row))


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value)
    return value if isinstance(value, str) else json.dumps(_finite(value))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def no_formula(text: str) -> str:
    """Return ``text``, with an apostrophe in front if a spreadsheet would read it as a formula."""
    return f"'{text}" if text.lstrip(" \u3000").startswith(_FORMULA_STARTS) else text
