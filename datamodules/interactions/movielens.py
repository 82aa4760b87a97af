"""Reads the rating files of GroupLens' MovieLens data sets, as they are published."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_plugins.datamodules.file_error_context import file_error_context
from lightning_plugins.datamodules.interactions.columns import (
    ITEM_ROLES,
    ROLES,
    item_facts,
    user_profiles,
)
from lightning_plugins.datamodules.interactions.interaction_table import InteractionTable
from lightning_plugins.datamodules.tables import find_columns, read_table
from lightning_plugins.nn.recommendation import Item
from lightning_plugins.nn.recommendation.catalogue import ItemId
from lightning_plugins.optional_packages import requires

if TYPE_CHECKING:
    import pandas

_TITLE_AND_YEAR = re.compile(r"(?P<title>.*\S)\s*\((?P<year>\d{4})\)\s*$")
_RATING_COLUMNS = {"user": "user", "item": "item", "rating": "rating", "timestamp": "timestamp"}
# The codes of users.dat, from the README of MovieLens 1M.
_AGES = {
    "1": "under 18", "18": "18-24", "25": "25-34", "35": "35-44", "45": "45-49", "50": "50-55",
    "56": "56+",
}  # fmt: skip
_OCCUPATIONS = (
    "other", "academic/educator", "artist", "clerical/admin", "college/grad student",
    "customer service", "doctor/health care", "executive/managerial", "farmer", "homemaker",
    "K-12 student", "lawyer", "programmer", "retired", "sales/marketing", "scientist",
    "self-employed", "technician/engineer", "tradesman/craftsman", "unemployed", "writer",
)  # fmt: skip


def read_movielens(folder: Path) -> InteractionTable | None:
    """Read the ratings of a MovieLens folder.

    100K and 1M have no header and are read by their layout; latest, latest-small and 25M by their
    header, in any order of columns.

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
    genres = [name for name, *_ in _lines(folder / "u.genre", "|", None)]
    facts: dict[ItemId, Item] = {}
    for item, text, *rest in _lines(folder / "u.item", "|", 5 + len(genres)):
        flags = rest[-len(genres) :]
        of_item = (name for name, flag in zip(genres, flags, strict=True) if flag == "1")
        facts[item] = _film(text, of_item)
    ratings = _frame(folder / "u.data", "\t", tuple(_RATING_COLUMNS))
    profiles = {}
    if (users := folder / "u.user").is_file():
        profiles = user_profiles(_frame(users, "|", ("user", "age", "gender", "occupation", "zip")))
    return _table(folder / "u.data", ratings, _RATING_COLUMNS, facts, profiles)


def _read_1m(folder: Path) -> InteractionTable:
    films = _lines(folder / "movies.dat", "::", 3)
    facts: dict[ItemId, Item] = {i: _film(text, names.split("|")) for i, text, names in films}
    ratings = _frame(folder / "ratings.dat", "::", tuple(_RATING_COLUMNS))
    profiles = {}
    if (path := folder / "users.dat").is_file():
        users = _frame(path, "::", ("user", "gender", "age", "occupation", "zip"))
        users["age"] = users["age"].map(lambda code: _AGES.get(code, code))
        known = {str(code): name for code, name in enumerate(_OCCUPATIONS)}
        users["occupation"] = users["occupation"].map(lambda code: known.get(code, code))
        profiles = user_profiles(users)
    return _table(folder / "ratings.dat", ratings, _RATING_COLUMNS, facts, profiles)


def _read_latest(folder: Path) -> InteractionTable:
    path = folder / "movies.csv"
    films = read_table(path)
    with file_error_context(path):
        found = find_columns(films, ITEM_ROLES, source=str(path))
        facts = {
            name: Item(*parsed_title(film.title), film.genres)
            for name, film in item_facts(films, found, "|").items()
        }
    ratings = read_table(folder / "ratings.csv")
    with file_error_context(folder / "ratings.csv"):
        columns = find_columns(ratings, ROLES[:4], source=str(folder / "ratings.csv"))
    return _table(folder / "ratings.csv", ratings, columns, facts, {})


def _table(
    path: Path,
    ratings: "pandas.DataFrame",
    columns: dict[str, str],
    facts: dict[ItemId, Item],
    profiles: dict[ItemId, str],
) -> InteractionTable:
    with file_error_context(path):
        if not len(ratings):
            raise ValueError("it has no ratings")
        note = f"{path.name}: {len(ratings)} ratings of {len(facts)} films"
        return InteractionTable.of_columns(ratings, columns, facts, profiles, notes=[note])


def _film(text: str, genres: Iterable[str]) -> Item:
    title, year = parsed_title(text)
    is_none = {"(no genres listed)", "unknown", ""}
    return Item(title, year, tuple(genre for genre in genres if genre not in is_none))


def _frame(path: Path, separator: str, names: tuple[str, ...]) -> "pandas.DataFrame":
    with requires("pandas", by="reading interactions", extra="recsys"):
        import pandas
    columns = zip(*_lines(path, separator, len(names)), strict=True)
    return pandas.DataFrame(dict(zip(names, columns, strict=False)), columns=list(names))


def _lines(path: Path, separator: str, width: int | None) -> list[list[str]]:
    # The files are encoded in Latin-1, although their readme says otherwise.
    lines = path.read_text("latin-1").split("\n")  # splitlines() splits at Latin-1's \x85
    rows = [line.rstrip("\r").split(separator) for line in lines if line.strip()]
    for number, row in enumerate(rows, start=1):
        if width is not None and len(row) != width:
            raise ValueError(f"{path}, row {number}: {len(row)} values, expected {width}")
    return rows
