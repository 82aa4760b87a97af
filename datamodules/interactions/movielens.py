"""Reads MovieLens as published by GroupLens: 100K, 1M, latest, and latest-small."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from lightning_plugins.datamodules.file_error_context import file_error_context
from lightning_plugins.datamodules.interactions.interaction_table import InteractionTable
from lightning_plugins.nn.recommendation import Item

_TITLE_AND_YEAR = re.compile(r"(?P<title>.*\S)\s*\((?P<year>\d{4})\)\s*$")
_NO_GENRE = {"(no genres listed)", "unknown", ""}


def read_movielens(folder: Path) -> InteractionTable | None:
    """Read the ratings of a MovieLens folder.

    Source: Harper and Konstan, The MovieLens Datasets, ACM TiiS 5(4), 2015.

    Returns:
        The ratings, or None if the folder has none of MovieLens' rating files.

    Raises:
        FileNotFoundError: The ratings exist, but the file of the films does not.
        ValueError: A line is invalid; the message names the file and the line.
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
    """Split ``Title (1999)`` into title and year; the year is None if it is missing."""
    found = _TITLE_AND_YEAR.match(text)
    return (found["title"], int(found["year"])) if found else (text.strip(), None)


def _read_100k(folder: Path) -> InteractionTable:
    names = [name for name, *_ in _lines(folder / "u.genre", "|")]
    facts = {}
    for item, text, *rest in _lines(folder / "u.item", "|", width=5 + len(names)):
        flags = rest[-len(names) :]
        genres = (name for name, flag in zip(names, flags, strict=True) if flag == "1")
        facts[item] = _item(text, genres)
    return _table(folder / "u.data", _lines(folder / "u.data", "\t", width=4), facts)


def _read_1m(folder: Path) -> InteractionTable:
    movies = _lines(folder / "movies.dat", "::", width=3)
    facts = {item: _item(text, genres.split("|")) for item, text, genres in movies}
    return _table(folder / "ratings.dat", _lines(folder / "ratings.dat", "::", width=4), facts)


def _read_latest(folder: Path) -> InteractionTable:
    movies = _csv_rows(folder / "movies.csv", width=3)
    facts = {item: _item(text, genres.split("|")) for item, text, genres in movies}
    return _table(folder / "ratings.csv", _csv_rows(folder / "ratings.csv", width=4), facts)


def _table(path: Path, rows: Iterable[Sequence[str]], facts: dict[str, Item]) -> InteractionTable:
    with file_error_context(path):
        columns = list(zip(*rows, strict=True))
        if not columns:
            raise ValueError("it has no ratings")
        users, items, ratings, timestamps = columns
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


def _lines(path: Path, separator: str, width: int | None = None) -> Iterator[list[str]]:
    # The files are encoded in Latin-1, although their readme says otherwise.
    with path.open(encoding="latin-1") as file:
        lines = (line.rstrip("\n").split(separator) for line in file if line.strip())
        yield from _of_width(path, lines, width)


def _csv_rows(path: Path, width: int) -> Iterator[list[str]]:
    with file_error_context(path), path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        next(rows, None)  # the header
        yield from _of_width(path, rows, width)


def _of_width(path: Path, rows: Iterable[list[str]], width: int | None) -> Iterator[list[str]]:
    for number, row in enumerate(rows, start=1):
        if width is not None and len(row) != width:
            raise ValueError(f"{path}, row {number}: {len(row)} values, expected {width}")
        yield row
