"""The roles of columns in tables of interactions, items and users, and the facts about them."""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from lightning_plugins.datamodules.interactions.interaction_table import identifier
from lightning_plugins.datamodules.tables import Role, find_columns
from lightning_plugins.nn.recommendation import Item
from lightning_plugins.nn.recommendation.catalogue import ItemId

if TYPE_CHECKING:
    import pandas

_USER_NAMES = (
    "user_id", "uid", "customer_id", "customer", "reviewer_id", "visitor_id", "account_id",
    "member_id", "session_id", "person_id",
)  # fmt: skip
_ITEM_NAMES = (
    "item_id", "iid", "movie_id", "product_id", "parent_asin", "asin", "book_id", "isbn",
    "track_id", "song_id", "artist_id", "video_id", "article_id", "business_id", "sku",
)  # fmt: skip
_TIME_NAMES = (
    "time", "date", "datetime", "ts", "unix_timestamp", "unix_review_time", "event_time",
    "created_at", "t_dat",
)  # fmt: skip
_FACTS = (
    Role("title", ("name", "movie_title", "product_title", "product_name")),
    Role("year", ("release_year",)),
    Role("genres", ("genre", "categories", "category", "class", "tags")),
    Role("text", ("description", "summary", "overview", "plot")),
)
ROLES = (
    Role("user", _USER_NAMES, required=True),
    Role("item", _ITEM_NAMES, required=True),
    Role("timestamp", _TIME_NAMES),
    Role("rating", ("ratings", "score", "stars", "overall")),
    *_FACTS,
)
ITEM_ROLES = (Role("item", (*_ITEM_NAMES, "id"), required=True), *_FACTS)
_USER_ROLES = (Role("user", (*_USER_NAMES, "id"), required=True),)
PAIR_ROLES = (
    Role("user", _USER_NAMES, required=True),
    Role("target", ("target_item", "target_id", "item", *_ITEM_NAMES), required=True),
)
_LIKE_A_TIME = re.compile(r"(?<!candi)date|time|_at$", re.IGNORECASE)
_TYPED = re.compile(r"(?P<name>.+):(?:token|float)(?:_seq)?")
_TESTED_ROWS = 100_000
_PRIVATE = ("zip", "postcode", "postal")
_NO_GENRE = {"(no genres listed)", "unknown", ""}


def without_types(table: "pandas.DataFrame") -> "pandas.DataFrame":
    """Rename RecBole's typed columns, such as ``item_id:token``, to their names."""
    names = {
        name: found["name"] for name in table.columns if (found := _TYPED.fullmatch(str(name)))
    }
    return table.rename(columns=names)


def of_reviews(
    table: "pandas.DataFrame", columns: Mapping[str, str], given: Mapping[str, str]
) -> list[str]:
    """Return the roles of columns that describe the interaction and not the item.

    A table of reviews has a title and a text of each review. A column describes items if its value
    is the same in all rows of an item, for at least half of the items with several rows.

    Args:
        table: A table of interactions.
        columns: Column by role.
        given: The same for the columns that the user stated, which are not tested.
    """
    found = []
    for role in ("title", "year", "text"):
        if role not in columns or role in given:
            continue
        pairs = table[[columns["item"], columns[role]]].head(_TESTED_ROWS).astype(str)
        rows = pairs.iloc[:, 0].value_counts()
        values = pairs.drop_duplicates().iloc[:, 0].value_counts()
        several = rows.index[rows > 1]
        if len(several) and (values[several] > 1).mean() > 0.5:
            found.append(role)
    return found


def like_a_time(columns: Iterable[object]) -> str | None:
    """Return the first column whose name contains a date or a time, or None."""
    return next((str(name) for name in columns if _LIKE_A_TIME.search(str(name))), None)


def item_facts(
    table: "pandas.DataFrame", columns: Mapping[str, str], separator: str | None = None
) -> dict[ItemId, Item]:
    """Return title, year, genres and text of each item.

    Of repeated items, the first row counts, and the genres of all rows: some tables have a row for
    each genre of an item.

    Args:
        table: A table of items, or of interactions with columns about the items.
        columns: ``item``, and optionally ``title``, ``year``, ``genres`` and ``text`` -> column.
        separator: Separator of the genres; None takes the first of ``|``, ``;`` and ``,`` that
            occurs in the column, and spaces of RecBole's ``token_seq``.
    """
    if len(columns) == 1:
        return {}
    rows = table.drop_duplicates(columns["item"])
    values = {role: rows[name].tolist() for role, name in columns.items()}
    genres = values.get("genres", [])
    if separator is None:
        joined = "".join(value for value in genres if isinstance(value, str))
        separator = next((mark for mark in "|;," if mark in joined), "|")
    of_other_rows = _all_genres(table, columns, separator) if len(rows) < len(table) else {}
    found = {}
    for row, name in enumerate(values["item"]):
        of_row = {role: column[row] for role, column in values.items()}
        found[identifier(name)] = Item(
            _text(of_row.get("title")) or str(identifier(name)),
            _year(of_row.get("year")),
            of_other_rows.get(name, _genres(of_row.get("genres"), separator)),
            _text(of_row.get("text")),
        )
    return found


def _all_genres(
    table: "pandas.DataFrame", columns: Mapping[str, str], separator: str
) -> dict[Any, tuple[str, ...]]:
    """Return the genres of all rows of an item, in the order of the rows."""
    if "genres" not in columns:
        return {}
    pairs = table[[columns["item"], columns["genres"]]]
    is_first = ~pairs.astype(str).duplicated()
    found: dict[Any, dict[str, None]] = {}
    for name, value in pairs[is_first].itertuples(index=False):
        found.setdefault(name, {}).update(dict.fromkeys(_genres(value, separator)))
    return {name: tuple(genres) for name, genres in found.items()}


def user_profiles(
    table: "pandas.DataFrame", columns: Mapping[str, str] | None = None, source: str = "the users"
) -> dict[ItemId, str]:
    """Return what a table states about each user, as ``gender: F, age: 24``.

    Post codes are left out.
    """
    (name,) = find_columns(table, _USER_ROLES, columns, source).values()
    others = [
        other
        for other in table.columns
        if other != name and not any(word in str(other).lower() for word in _PRIVATE)
    ]
    return {
        identifier(user): ", ".join(
            f"{other}: {text}"
            for other, value in zip(others, values, strict=True)
            if (text := _text(value))
        )
        for user, *values in table[[name, *others]].itertuples(index=False)
    }


def _text(value: Any) -> str:
    is_missing = value is None or value != value
    return "" if is_missing else " ".join(str(value).split())


def _year(value: Any) -> int | None:
    try:
        return int(float(_text(value)))
    except ValueError:
        return None


def _genres(value: Any, separator: str) -> tuple[str, ...]:
    if isinstance(value, str):
        names = value.split() if separator == " " else value.split(separator)
    else:  # a list in JSON or Parquet, or a missing value
        names = [_text(name) for name in value] if hasattr(value, "__iter__") else []
    return tuple(name for raw in names if (name := raw.strip()) not in _NO_GENRE)
