"""Reads interactions from a CSV file, a Parquet file, or a folder with RecBole's atomic files."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_plugins.assets import asset_path
from lightning_plugins.datamodules.file_error_context import file_error_context
from lightning_plugins.datamodules.interactions.interaction_table import InteractionTable
from lightning_plugins.datamodules.interactions.movielens import read_movielens
from lightning_plugins.nn.recommendation import Item
from lightning_plugins.optional_packages import requires

_REQUIRED = ("user", "item", "timestamp")
_OPTIONAL = ("rating", "title", "year", "genres")
# Column names in RecBole's own conversions of the public data sets.
_RECBOLE_TITLES = ("movie_title", "title", "name")
_RECBOLE_YEARS = ("release_year", "year")
_RECBOLE_GENRES = ("class", "genre", "genres", "categories")


def read_interactions(source: str, columns: Mapping[str, str]) -> InteractionTable:
    """Detect the format of ``source`` and read its interactions.

    Args:
        source: A folder, a ``.csv`` or ``.parquet`` file, or the asset ``movielens-100k``.
        columns: Meaning of a column -> its name, for files (:func:`read_column_file`).

    Raises:
        FileNotFoundError: The path does not exist, or the asset is not installed.
        ValueError: The format is unknown, or a row or column is missing or invalid.
    """
    if source == "movielens-100k":
        path = asset_path("recbole") / "recbole" / "dataset_example" / "ml-100k"
    else:
        path = Path(source).expanduser()
    if path.suffix in (".csv", ".parquet") and path.is_file():
        return read_column_file(path, columns)
    if path.is_dir():
        for read in (read_movielens, read_recbole):
            table = read(path)
            if table is not None:
                return table
        raise ValueError(
            f"source={source!r}: expected ratings.dat, ratings.csv or u.data of MovieLens, or a "
            ".inter file of RecBole, in this folder"
        )
    raise FileNotFoundError(
        f"source={source!r}: no such folder, .csv or .parquet file; the embedded default is "
        "'movielens-100k'"
    )


def read_column_file(path: Path, columns: Mapping[str, str]) -> InteractionTable:
    """Read a CSV or Parquet file with one interaction per row.

    Args:
        path: A ``.csv`` or ``.parquet`` file.
        columns: Meaning of a column -> its name. The meanings are ``user``, ``item`` and
            ``timestamp`` (numbers), and optionally ``rating``, ``title``, ``year`` and ``genres``
            (separated by ``|``). A column that is not listed has its meaning as its name.

    Raises:
        ValueError: A meaning is unknown, a column is missing, or a row is invalid.
        ImportError: The file is a Parquet file and pyarrow is not installed.
    """
    unknown = set(columns) - {*_REQUIRED, *_OPTIONAL}
    if unknown:
        allowed = ", ".join((*_REQUIRED, *_OPTIONAL))
        raise ValueError(f"columns has {', '.join(sorted(unknown))}: expected some of {allowed}")
    with file_error_context(path):
        values = _parquet_columns(path) if path.suffix == ".parquet" else _csv_columns(path)
        found = {}
        for meaning in (*_REQUIRED, *_OPTIONAL):
            name = columns.get(meaning, meaning)
            if name in values:
                found[meaning] = values[name]
            elif meaning in _REQUIRED or meaning in columns:
                raise ValueError(
                    f"{path} has no column {name!r} for {meaning}: it has {', '.join(values)}; "
                    f"set columns={{{meaning!r}: NAME}}"
                )
        empty = [""] * len(found["item"])
        facts = {
            item: Item(
                title or str(item),
                int(float(year)) if year else None,
                tuple(genre for genre in genres.split("|") if genre),
            )
            for item, title, year, genres in zip(
                found["item"],
                *(found.get(meaning, empty) for meaning in ("title", "year", "genres")),
                strict=True,
            )
        }
        return _table(found["user"], found["item"], found["timestamp"], found.get("rating"), facts)


def read_recbole(folder: Path) -> InteractionTable | None:
    """Read RecBole's atomic files: ``NAME.inter``, and item facts from ``NAME.item`` if present.

    Source: https://recbole.io/docs/user_guide/data/atomic_files.html

    Returns:
        The interactions, or None if the folder has no ``.inter`` file.

    Raises:
        ValueError: There are several ``.inter`` files, a column is missing, or a row is invalid.
    """
    files = sorted(folder.glob("*.inter"))
    if not files:
        return None
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise ValueError(f"{folder} holds several data sets ({names}): keep one per folder")
    facts = _recbole_facts(files[0].with_suffix(".item"))
    with file_error_context(files[0]):
        columns = _recbole_columns(files[0], "user_id", "item_id", "timestamp")
        return _table(
            columns["user_id"],
            columns["item_id"],
            columns["timestamp"],
            columns.get("rating"),
            facts,
        )


def _table(
    users: Sequence[str],
    items: Sequence[str],
    timestamps: Sequence[str],
    ratings: Sequence[str] | None,
    facts: Mapping[str, Item],
) -> InteractionTable:
    return InteractionTable(
        np.array(users),
        np.array(items),
        np.array(timestamps, dtype=np.float64),
        None if ratings is None else np.array(ratings, dtype=np.float64),
        facts,
    )


def _csv_columns(path: Path) -> dict[str, list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    if not rows:
        raise ValueError(f"{path} is empty: expected a header and rows")
    return _columns(path, rows[0], rows[1:])


def _parquet_columns(path: Path) -> dict[str, list[Any]]:
    with requires("pyarrow", by="reading Parquet", extra="recsys"):
        from pyarrow import parquet
    table = parquet.read_table(path)
    return {
        name: [_as_in_text(value) for value in table[name].to_pylist()]
        for name in table.column_names
    }


def _as_in_text(value: Any) -> Any:
    """Return an integer unchanged, because it may be an identifier, and other values as text."""
    return value if type(value) is int else "" if value is None else str(value)


def _recbole_columns(path: Path, *required: str) -> dict[str, list[str]]:
    with path.open(encoding="utf-8") as file:
        header = [name.partition(":")[0] for name in file.readline().rstrip("\n").split("\t")]
        rows = [line.rstrip("\n").split("\t") for line in file if line.strip()]
    columns = _columns(path, header, rows)
    for name in required:
        if name not in columns:
            raise ValueError(f"{path} has no column {name}: it has {', '.join(columns)}")
    return columns


def _columns(
    path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> dict[str, list[str]]:
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(f"{path}: row {number} has {len(row)} values in {len(header)} columns")
    return {name: [row[place] for row in rows] for place, name in enumerate(header)}


def _recbole_facts(path: Path) -> dict[str, Item]:
    if not path.is_file():
        return {}
    with file_error_context(path):
        columns = _recbole_columns(path, "item_id")
    rows = range(len(columns["item_id"]))
    titles = _first(columns, _RECBOLE_TITLES) or columns["item_id"]
    years = _first(columns, _RECBOLE_YEARS) or [""] * len(rows)
    genres = _first(columns, _RECBOLE_GENRES) or [""] * len(rows)
    return {
        columns["item_id"][row]: Item(
            titles[row],
            int(years[row]) if years[row].isdecimal() else None,
            tuple(genre for genre in genres[row].split() if genre != "unknown"),
        )
        for row in rows
    }


def _first(columns: dict[str, list[str]], names: tuple[str, ...]) -> list[str] | None:
    return next((columns[name] for name in names if name in columns), None)
