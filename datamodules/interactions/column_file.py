"""One CSV or Parquet file with a row an interaction, by a map of its columns."""

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lightning_plugins.datamodules.file_error_context import file_error_context
from lightning_plugins.datamodules.interactions.table import InteractionTable
from lightning_plugins.nn.recommendation import Item

_REQUIRED = ("user", "item", "timestamp")
_OPTIONAL = ("rating", "title", "year", "genres")


def read_column_file(path: Path, columns: Mapping[str, str]) -> InteractionTable:
    """The interactions of a file.

    Args:
        path: ends in ``.csv`` or ``.parquet``.
        columns: what a column means -> its name: ``user``, ``item``, ``timestamp`` (numbers), and
            where there are such, ``rating``, ``title``, ``year``, ``genres`` (with ``|`` between).
            What is not named has the name of its meaning.

    Raises:
        ValueError: an unknown meaning, a column that the file lacks, or a row that cannot be one.
        ImportError: a Parquet file without pyarrow.
    """
    unknown = set(columns) - {*_REQUIRED, *_OPTIONAL}
    if unknown:
        allowed = ", ".join((*_REQUIRED, *_OPTIONAL))
        raise ValueError(f"columns has {', '.join(sorted(unknown))}: expected among {allowed}")
    with file_error_context(path):
        return _table(path, columns)


def _table(path: Path, columns: Mapping[str, str]) -> InteractionTable:
    values = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    found = {}
    for meaning in (*_REQUIRED, *_OPTIONAL):
        name = columns.get(meaning, meaning)
        if name in values:
            found[meaning] = values[name]
        elif meaning in _REQUIRED or meaning in columns:
            raise ValueError(
                f"{path} has no column {name!r} for {meaning}: has {', '.join(values)}; "
                "say which one it is by columns"
            )
    ratings = found.get("rating")
    return InteractionTable(
        np.array(found["user"]),
        np.array(found["item"]),
        np.array(found["timestamp"], dtype=np.float64),
        None if ratings is None else np.array(ratings, dtype=np.float64),
        _facts(found),
    )


def _facts(found: Mapping[str, list[str]]) -> dict[str, Item]:
    rows = len(found["item"])
    titles, years, genres = (
        found.get(meaning, [""] * rows) for meaning in ("title", "year", "genres")
    )
    return {
        item: Item(
            title or item,
            int(float(year)) if year else None,
            tuple(genre for genre in names.split("|") if genre),
        )
        for item, title, year, names in zip(found["item"], titles, years, genres, strict=True)
    }


def _read_csv(path: Path) -> dict[str, list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    if not rows:
        raise ValueError(f"{path} is empty: expected a header and rows")
    header, *rows = rows
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(f"{path}: row {number} has {len(row)} values in {len(header)} columns")
    return {name: [row[place] for row in rows] for place, name in enumerate(header)}


def _read_parquet(path: Path) -> dict[str, list[str]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(
            'Parquet files need pyarrow: pip install "lightning-plugins[recsys]"'
        ) from error
    table = parquet.read_table(path)
    return {
        name: ["" if value is None else str(value) for value in table[name].to_pylist()]
        for name in table.column_names
    }
