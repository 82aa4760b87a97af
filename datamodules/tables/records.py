"""Reads JSON and JSON lines as a table."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_plugins.inputs import check_json_depth, check_table_bytes, listed, quoted

if TYPE_CHECKING:
    import pandas

_CELL_BYTES = 8
_PYTHON = re.compile(r"\s*\{\s*u?'")
_EXPECTED = (
    "expected a list of records, one record per line, or a dictionary of columns of equal length"
)


def read_records(text: str, path: Path) -> "pandas.DataFrame":
    """Return the records of JSON or of JSON lines; values keep their types.

    Args:
        text: Content of the file.
        path: The file.

    Raises:
        ValueError: The text is neither, or is empty; the message gives the line.
        LimitError: It is nested too deeply, or the table would be much larger than its file.
    """
    import pandas

    content = _parsed(text)
    if isinstance(content, dict):
        content = _records_in(content, path)
    if isinstance(content, list):
        for number, record in enumerate(content, start=1):
            if not isinstance(record, dict):
                raise ValueError(f"row {number} is not a record but {_kind(record)}: {_EXPECTED}")
        # Each record has a cell for every key of the others.
        names = {name for record in content for name in record}
        check_table_bytes(_CELL_BYTES * len(content) * len(names), path)
        # dtype=object keeps whole numbers whole in columns with missing values.
        content = pandas.DataFrame(content, dtype=object)
    return content


def _parsed(text: str) -> Any:
    if not text.strip():
        raise ValueError(f"the file is empty: {_EXPECTED}")
    try:
        content = json.loads(text, object_pairs_hook=_record)
        check_json_depth(text, "the JSON")
        return content
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error
    except json.JSONDecodeError as error:
        # One record per line, whatever the suffix. splitlines() also splits at line ends that JSON
        # does not escape, such as U+2028.
        lines = text.split("\n")
        is_lines = text.lstrip().startswith("{") and (
            error.msg == "Extra data"
            or sum(bool(line.strip()) for line in lines) > 1
            or _PYTHON.match(text)
        )
        if not is_lines:
            raise ValueError(f"not JSON: {error}") from error
    return [_line(line, number) for number, line in enumerate(lines, 1) if line.strip()]


def _line(line: str, number: int) -> Any:
    try:
        content = json.loads(line, object_pairs_hook=_record)
        check_json_depth(line, f"line {number}")
        return content
    except RecursionError as error:
        raise ValueError(f"line {number} is nested too deeply") from error
    except json.JSONDecodeError as error:
        if _PYTHON.match(line):
            raise ValueError(
                f"line {number} is a Python dictionary, not JSON: convert each line with "
                "json.dumps(ast.literal_eval(line))"
            ) from error
        raise ValueError(f"line {number} is not JSON: {error}") from error


def _records_in(content: Mapping[str, Any], path: Path) -> Any:
    """Return the list of records, or the table, that a dictionary contains."""
    import pandas

    values = list(content.values())
    lists = [name for name, value in content.items() if _are_records(value)]
    if len(lists) > 1:
        raise ValueError(f"several lists of records ({listed(lists)}): {_EXPECTED}")
    if content and all(isinstance(value, list) for value in values):
        if {"columns", "data"} <= set(content):  # pandas' orient="split"
            widest = max((len(x) for x in content["data"] if isinstance(x, list | dict)), default=1)
            check_table_bytes(_CELL_BYTES * len(content["data"]) * widest, path)
            return pandas.DataFrame(content["data"], columns=content["columns"], dtype=object)
        lengths = {name: len(value) for name, value in content.items()}
        if len(values) > 1 or not _are_records(values[0]):
            if len(set(lengths.values())) > 1:
                of_columns = listed(f"{name}: {length}" for name, length in lengths.items())
                raise ValueError(f"the columns have different lengths, {of_columns}: {_EXPECTED}")
            return pandas.DataFrame(dict(content), dtype=object)
    if content and all(isinstance(value, dict) for value in values):
        rows = set().union(*values)
        if all(row.isdecimal() for row in rows):  # pandas' orient="columns"
            order = {row: None for value in values for row in value}
            return [
                {name: value[row] for name, value in content.items() if row in value}
                for row in order
            ]
        if all(key.isdecimal() for key in content):  # pandas' orient="index"
            return values
        raise ValueError(f"a dictionary of dictionaries is ambiguous: {_EXPECTED}")
    return content[lists[0]] if lists else [dict(content)]


def _record(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in record if names.count(name) > 1)
        raise ValueError(f"a record has the key {quoted(repeated)} several times")
    return record


def _are_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(x, dict) for x in value)


def _kind(value: Any) -> str:
    return {list: "a list", str: "a string", type(None): "null"}.get(type(value), "a number")
