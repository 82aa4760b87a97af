"""The folders in which GroupLens publishes MovieLens: 100K, 1M, and latest(-small)."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from lightning_plugins.datamodules.interactions.table import InteractionTable
from lightning_plugins.nn.recommendation import Item

_TITLE_AND_YEAR = re.compile(r"(?P<title>.*\S)\s*\((?P<year>\d{4})\)\s*$")
_NO_GENRE = {"(no genres listed)", "unknown", ""}


def read_movielens(folder: Path) -> InteractionTable | None:
    """The ratings of a MovieLens folder, or None if it is none.

    Source: Harper and Konstan, The MovieLens Datasets, ACM TiiS 5(4), 2015.
    """
    for marker, read in (
        ("u.data", _read_100k),
        ("ratings.dat", _read_1m),
        ("ratings.csv", _read_latest),
    ):
        if (folder / marker).is_file():
            return read(folder)
    return None


def parsed_title(text: str) -> tuple[str, int | None]:
    """Title and year of ``Title (1999)``; year None where there is none."""
    found = _TITLE_AND_YEAR.match(text)
    return (found["title"], int(found["year"])) if found else (text.strip(), None)


def _read_100k(folder: Path) -> InteractionTable:
    names = [line[0] for line in _lines(folder / "u.genre", "|") if line[0]]
    facts = {}
    for item, text, *rest in _lines(folder / "u.item", "|"):
        flags = rest[-len(names) :]
        genres = (name for name, flag in zip(names, flags, strict=True) if flag == "1")
        facts[item] = _item(text, genres)
    return _table(_lines(folder / "u.data", "\t"), facts)


def _read_1m(folder: Path) -> InteractionTable:
    movies = _lines(folder / "movies.dat", "::")
    facts = {item: _item(text, genres.split("|")) for item, text, genres in movies}
    return _table(_lines(folder / "ratings.dat", "::"), facts)


def _read_latest(folder: Path) -> InteractionTable:
    movies = _csv_rows(folder / "movies.csv")
    facts = {item: _item(text, genres.split("|")) for item, text, genres in movies}
    return _table(_csv_rows(folder / "ratings.csv"), facts)


def _table(rows: Iterable[Sequence[str]], facts: dict[str, Item]) -> InteractionTable:
    users, items, ratings, timestamps = zip(*rows, strict=True)
    return InteractionTable(
        np.array(users),
        np.array(items),
        np.array(timestamps, dtype=np.float64),
        np.array(ratings, dtype=np.float64),
        facts,
    )


def _item(text: str, genres: Iterable[str]) -> Item:
    title, year = parsed_title(text)
    return Item(title, year, tuple(genre for genre in genres if genre not in _NO_GENRE))


def _lines(path: Path, separator: str) -> Iterator[list[str]]:
    # Published in Latin-1, whatever their readme says.
    with path.open(encoding="latin-1") as file:
        for line in file:
            if line.strip():
                yield line.rstrip("\n").split(separator)


def _csv_rows(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        next(rows)  # the header
        yield from rows
