"""RecBole's atomic files: NAME.inter and, with what is known of items, NAME.item."""

from pathlib import Path

import numpy as np

from lightning_plugins.datamodules.file_error_context import file_error_context
from lightning_plugins.datamodules.interactions.table import InteractionTable
from lightning_plugins.nn.recommendation import Item

# The names that RecBole's own conversions of the public data sets use.
_TITLES = ("movie_title", "title", "name")
_YEARS = ("release_year", "year")
_GENRES = ("class", "genre", "genres", "categories")


def read_atomic(folder: Path) -> InteractionTable | None:
    """The interactions of a folder with one ``.inter`` file, or None if it has none.

    Source: https://recbole.io/docs/user_guide/data/atomic_files.html

    Raises:
        ValueError: several such files, a column missing, or a row that cannot be one.
    """
    files = sorted(folder.glob("*.inter"))
    if not files:
        return None
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise ValueError(f"{folder} holds several data sets ({names}): keep one a folder")
    facts = _facts(files[0].with_suffix(".item"))
    with file_error_context(files[0]):
        columns = _columns(files[0])
        for name in ("user_id", "item_id", "timestamp"):
            if name not in columns:
                raise ValueError(f"{files[0]} has no column {name}: has {', '.join(columns)}")
        ratings = columns.get("rating")
        return InteractionTable(
            np.array(columns["user_id"]),
            np.array(columns["item_id"]),
            np.array(columns["timestamp"], dtype=np.float64),
            None if ratings is None else np.array(ratings, dtype=np.float64),
            facts,
        )


def _facts(path: Path) -> dict[str, Item]:
    if not path.is_file():
        return {}
    with file_error_context(path):
        columns = _columns(path)
        if "item_id" not in columns:
            raise ValueError(f"{path} has no column item_id: has {', '.join(columns)}")
    rows = range(len(columns["item_id"]))
    titles = _first(columns, _TITLES) or columns["item_id"]
    years = _first(columns, _YEARS) or [""] * len(rows)
    genres = _first(columns, _GENRES) or [""] * len(rows)
    return {
        columns["item_id"][row]: Item(
            titles[row],
            int(years[row]) if years[row].isdecimal() else None,
            tuple(genre for genre in genres[row].split() if genre != "unknown"),
        )
        for row in rows
    }


def _columns(path: Path) -> dict[str, list[str]]:
    with path.open(encoding="utf-8") as file:
        header = [name.partition(":")[0] for name in file.readline().rstrip("\n").split("\t")]
        rows = [line.rstrip("\n").split("\t") for line in file if line.strip()]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(f"{path}:{number}: {len(row)} values in {len(header)} columns")
    return {name: [row[place] for row in rows] for place, name in enumerate(header)}


def _first(columns: dict[str, list[str]], names: tuple[str, ...]) -> list[str] | None:
    return next((columns[name] for name in names if name in columns), None)
