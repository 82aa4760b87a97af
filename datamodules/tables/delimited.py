"""Reads CSV and its relatives: the delimiter and the use of quotes are detected."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lightning_plugins.inputs import check_table_bytes, quoted
from lightning_plugins.inputs.limits import require

if TYPE_CHECKING:
    import pandas
    import pyarrow

_USUAL = (",", "\t", ";", "|")
_NO_DELIMITER = "\x1f"
_IN_NAMES = frozenset("\"'_-. \r\n")
_HEAD_BYTES = 1 << 18
_BLOCK_BYTES = 1 << 22
_QUOTED = re.compile(r'"[^"]*(?:""[^"]*)*"')
_EXCEL_LINE = re.compile(rb"sep=(.)\r?\n", re.IGNORECASE)


class _Parsed(NamedTuple):
    table: "pyarrow.Table"
    bad: list[tuple[int, int, int]]  # row, expected columns, columns
    quotes: bool


def read_delimited(
    data: bytes,
    path: Path,
    suffix: str,
    delimiter: str | None,
    names: Sequence[str] | None,
) -> "pandas.DataFrame":
    """Return the rows of a delimited table; all values are strings.

    Args:
        data: Content of the file in UTF-8.
        path: Name of the file, for messages.
        suffix: ``.tsv``, ``.tab`` and RecBole's suffixes name a table with tabs.
        delimiter: Character between columns; None to detect it.
        names: Names of the columns if the first row is data.

    Raises:
        ValueError: The file is empty, the delimiter is ambiguous, column names repeat, or a row has
            too few or too many values.
    """
    if data.isspace() or not data:
        raise ValueError(f"{path} is empty: expected a header and rows")
    if delimiter is not None and (len(delimiter) != 1 or not delimiter.isascii()):
        raise ValueError(f"delimiter={delimiter!r}: expected one ASCII character")
    if delimiter is None and (line := _EXCEL_LINE.match(data)):
        delimiter, data = line[1].decode(), data[line.end() :]
    if delimiter is None:
        delimiter = _sniffed(data, path, suffix)
    parsed = None
    if delimiter == "\t":
        parsed = _parsed(data, delimiter, quotes=False, names=names)
        if parsed.bad or not _has_bare_quotes(parsed.table):
            parsed = None
    if parsed is None:
        parsed = _parsed(data, delimiter, quotes=True, names=names)
    _check_quotes(data, path, delimiter, parsed)
    if parsed.bad:
        row, expected, seen = parsed.bad[0]
        number = row if names else row - 1
        raise ValueError(
            f"{path}: row {number} has {seen} values in {expected} columns, with the delimiter "
            f"{delimiter!r} ({len(parsed.bad)} such rows; the row after the header is row 1)"
        )
    parsed = parsed._replace(table=_without_blank_columns(parsed.table))
    repeated = [name for name, count in Counter(parsed.table.column_names).items() if count > 1]
    if repeated:
        raise ValueError(f"{path} has several columns named {quoted(repeated[0])}")
    check_columns(parsed.table, path)
    return parsed.table.to_pandas()


def check_columns(table: "pyarrow.Table", path: Path) -> None:
    """Check the lengths of the strings in a table, and its size.

    Raises:
        LimitError: A cell or the table exceeds its limit.
    """
    import pyarrow
    from pyarrow import compute

    for column in table.columns:
        if pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type):
            longest = compute.max(compute.utf8_length(column)).as_py()
            require("cell_characters", longest or 0, str(path))
    check_table_bytes(table.nbytes, path)


def _parsed(data: bytes, delimiter: str, quotes: bool, names: Sequence[str] | None) -> _Parsed:
    import pyarrow
    from pyarrow import csv

    bad: list[tuple[int, int, int]] = []

    def keep(row: "csv.InvalidRow") -> str:
        bad.append((row.number or 0, row.expected_columns, row.actual_columns))
        return "skip"

    def read(block_size: int) -> "pyarrow.Table":
        bad.clear()
        return csv.read_csv(
            pyarrow.BufferReader(data),
            read_options=csv.ReadOptions(
                use_threads=False,  # several threads do not number the rows
                block_size=block_size,
                column_names=None if names is None else list(names),
            ),
            parse_options=csv.ParseOptions(
                delimiter=delimiter,
                quote_char='"' if quotes else False,
                newlines_in_values=quotes,
                invalid_row_handler=keep,
            ),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(columns, pyarrow.large_string()),
                strings_can_be_null=False,
            ),
        )

    columns = names if names is not None else _header(data, delimiter, quotes)
    try:
        return _Parsed(read(_BLOCK_BYTES), bad, quotes)
    except pyarrow.ArrowInvalid:  # a row has to fit into one block
        if len(data) <= _BLOCK_BYTES:
            raise
    return _Parsed(read(min(len(data) + 1, 2**31 - 1)), bad, quotes)


def _header(data: bytes, delimiter: str, quotes: bool) -> list[str]:
    """Return the names of the first row, read as a row without a header."""
    import csv
    import io

    first = _first_record(data)
    if not quotes:
        return first.rstrip("\r\n").split(delimiter)
    return next(csv.reader(io.StringIO(first, newline=""), delimiter=delimiter), [])


def _first_record(data: bytes) -> str:
    """Return the text up to the first line end outside quotes."""
    inside, data = False, data[: len(data) - len(data.lstrip(b"\r\n")) + _HEAD_BYTES]
    text = data.lstrip(b"\r\n").decode(errors="ignore")
    for place, letter in enumerate(text):
        if letter == '"':
            inside = not inside
        elif letter in "\r\n" and not inside:
            return text[:place]
    return text


def _check_quotes(data: bytes, path: Path, delimiter: str, parsed: _Parsed) -> None:
    """Refuse a quoted field whose content has quotes that are not doubled.

    Parsers end such a field at its first quote, which loses quotes and can join rows.
    """
    if not parsed.quotes or b'"' not in data:
        return
    mark = re.escape(delimiter.encode())
    fields = re.compile(
        rb'(?:"[^"]*+(?:""[^"]*+)*+"(?=[%b\r\n]|\Z)|[^"%b\r\n][^%b\r\n]*+|[%b\r\n])*+'
        % (mark, mark, mark, mark)
    )
    end = fields.match(data).end()  # type: ignore[union-attr]  # it matches the empty string
    if end < len(data):
        around = data[end : end + 40].decode(errors="replace")
        line = 1 + data.count(b"\n", 0, end)
        raise ValueError(
            f"{path}, line {line}: the field {quoted(around)} begins with a quote, and its end has "
            'none, or a quote inside is not doubled: write quotes inside a field as ""'
        )


def _without_blank_columns(table: "pyarrow.Table") -> "pyarrow.Table":
    """Remove columns with neither a name nor values, which spreadsheets append."""
    from pyarrow import compute

    blank = [
        place
        for place, name in enumerate(table.column_names)
        if not name.strip() and not (compute.max(compute.utf8_length(table[place])).as_py() or 0)
    ]
    return table.select([p for p in range(table.num_columns) if p not in blank])


def _has_bare_quotes(table: "pyarrow.Table") -> bool:
    """Return whether a field contains quotes that do not enclose it: the file does not quote."""
    for name in table.column_names:
        for field in table[name].to_pylist():
            if field.startswith('"') and not _QUOTED.fullmatch(field):
                return True
    return False


def _sniffed(data: bytes, path: Path, suffix: str) -> str:
    header = re.sub(r'"[^"]*"', "", _first_record(data))
    if "\t" in header and suffix not in (".csv",):
        return "\t"
    found = {letter for letter in header if not letter.isalnum() and letter.isascii()} - _IN_NAMES
    usual = [letter for letter in _USUAL if letter in found]
    others = sorted(found - set(_USUAL))
    for group in (usual, others, [" "] if " " in header and not usual else []):
        fitting = [letter for letter in group if _fits(data, letter)]
        if len(fitting) > 1:
            raise ValueError(
                f"{path}: the delimiter is ambiguous: expected delimiter=CHARACTER; it could be "
                f"{' or '.join(map(repr, fitting))}"
            )
        if fitting:
            return fitting[0]
    # A table of one column, or rows of unequal length, which the full parse reports.
    return usual[0] if usual else _NO_DELIMITER


def _fits(data: bytes, delimiter: str) -> bool:
    """Return whether the first rows have equally many columns, at least two."""
    size = _HEAD_BYTES
    while True:
        cut = size < len(data)
        head = data[:size].decode(errors="ignore").encode()
        parsed = _parsed(head, delimiter, quotes=True, names=None)
        if cut and parsed.table.num_rows + len(parsed.bad) < 2:
            size *= 8
            continue
        last = parsed.table.num_rows + len(parsed.bad) + 1
        bad = [row for row, _, _ in parsed.bad if not (cut and row == last)]
        return parsed.table.num_columns > 1 and not bad
