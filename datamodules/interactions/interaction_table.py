"""The table of interactions that every reader returns, and the filters on it."""

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from lightning_plugins.datamodules.tables import is_missing, numbers, timestamps
from lightning_plugins.nn.recommendation import Item
from lightning_plugins.nn.recommendation.catalogue import ItemId

if TYPE_CHECKING:
    import pandas

Value = TypeVar("Value")
_WHOLE = re.compile(r"^(-?\d+)\.0+$")
_PLACEHOLDERS = frozenset(("nan", "null", "none", "n/a", r"\n"))


@dataclass(frozen=True)
class InteractionTable:
    """Interactions as read from files, one per row.

    Args:
        users: Places of the users in ``user_ids``, int64 ``(rows,)``.
        items: Places of the items in ``item_ids``, int64 ``(rows,)``.
        user_ids: Identifiers of the users, sorted: strings, or integers where the file has them.
        item_ids: Identifiers of the items, in the same way.
        timestamps: Times in seconds, float64 ``(rows,)``, or None if the data has none; the rows
            are then in chronological order.
        ratings: Ratings, float64 ``(rows,)``, or None if the data has none.
        parts: 0, 1, 2 for rows of published training, validation and test files, int8 ``(rows,)``,
            or None.
        facts: Title, year and genres of items by identifier. Items without an entry are allowed.
        profiles: What is known about users, as text, by identifier.
        notes: What the reader found and dropped, as text.
    """

    users: np.ndarray
    items: np.ndarray
    user_ids: tuple[ItemId, ...]
    item_ids: tuple[ItemId, ...]
    timestamps: np.ndarray | None = None
    ratings: np.ndarray | None = None
    parts: np.ndarray | None = None
    facts: Mapping[ItemId, Item] = field(default_factory=dict)
    profiles: Mapping[ItemId, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.users)

    def rows(self, chosen: np.ndarray) -> "InteractionTable":
        """Return the rows selected by a mask, or by indices in their order."""
        return replace(
            self,
            users=self.users[chosen],
            items=self.items[chosen],
            timestamps=None if self.timestamps is None else self.timestamps[chosen],
            ratings=None if self.ratings is None else self.ratings[chosen],
            parts=None if self.parts is None else self.parts[chosen],
        )

    @staticmethod
    def of_columns(
        table: "pandas.DataFrame",
        columns: Mapping[str, str],
        facts: Mapping[ItemId, Item] | None = None,
        profiles: Mapping[ItemId, str] | None = None,
        parts: np.ndarray | None = None,
        notes: Sequence[str] = (),
    ) -> "InteractionTable":
        """Build a table from the columns of a data frame.

        Rows without a user, item or timestamp are dropped and counted in ``notes``.

        Args:
            table: The data frame.
            columns: ``user``, ``item``, and optionally ``timestamp`` and ``rating`` -> column.
            facts: See the class.
            profiles: See the class.
            parts: See the class.
            notes: See the class.

        Raises:
            ValueError: A timestamp or rating is invalid.
        """
        lost = {role: is_missing(table[columns[role]]) for role in ("user", "item")}
        times = timestamps(table[columns["timestamp"]]) if "timestamp" in columns else None
        if times is not None:
            lost["timestamp"] = np.isnan(times)
            _warn_of_placeholders(times, columns["timestamp"])
        is_kept = ~np.any(list(lost.values()), axis=0)
        dropped = [f"{lost[role].sum()} rows without {role}" for role in lost if lost[role].any()]
        ratings = numbers(table[columns["rating"]]) if "rating" in columns else None
        users, user_ids = coded(table[columns["user"]][is_kept])
        items, item_ids = coded(table[columns["item"]][is_kept])
        for role, ids in (("user", user_ids), ("item", item_ids)):
            _warn_of_ids(role, ids)
        return InteractionTable(
            users,
            items,
            user_ids,
            item_ids,
            None if times is None else times[is_kept],
            None if ratings is None else ratings[is_kept],
            None if parts is None else parts[is_kept],
            of_same_ids(facts or {}, item_ids),
            of_same_ids(profiles or {}, user_ids),
            (*notes, *([f"dropped {' and '.join(dropped)}"] if dropped else [])),
        )


def coded(column: "pandas.Series") -> tuple[np.ndarray, tuple[ItemId, ...]]:
    """Return the places of a column's values among its sorted identifiers, and the identifiers.

    Integers stay integers, and whole numbers that are stored as floating point become integers. All
    other values become strings.

    Raises:
        ValueError: A value is a list, a dictionary, or bytes.
    """
    import pandas

    try:
        places, unique = pandas.factorize(column)
    except TypeError:
        for row, value in zip(column.index, column, strict=True):
            if isinstance(value, list | dict | set | np.ndarray):
                kind = type(value).__name__
                raise ValueError(
                    f"column {column.name!r}, row {row + 1} is a {kind}: expected an identifier"
                ) from None
        raise
    names = [identifier(value) for value in unique.tolist()]
    # Integers before strings, because they cannot be compared.
    order = sorted(range(len(names)), key=lambda n: (isinstance(names[n], str), names[n]))
    rank = np.empty(len(names), dtype=np.int64)
    rank[order] = np.arange(len(names))
    return rank[places], tuple(names[n] for n in order)


def of_same_ids(found: Mapping[ItemId, Value], ids: Iterable[ItemId]) -> dict[ItemId, Value]:
    """Return the value of each identifier that has one.

    Of the identifiers that are not in ``found``, ``7``, ``"7"``, ``"7.0"`` and ``" 7"`` are the
    same: one file has numbers, another has text or numbers of a column with missing values.
    """
    ids = list(ids)
    if all(name in found for name in ids):
        return {name: found[name] for name in ids}
    by_text: dict[str, list[Value]] = {}
    for name, value in found.items():
        by_text.setdefault(common_form(name), []).append(value)
    joined = {}
    for name in ids:
        values = [found[name]] if name in found else by_text.get(common_form(name), [])
        if len(values) == 1:
            joined[name] = values[0]
    return joined


def common_form(name: ItemId) -> str:
    """Return an identifier as text, without outer white space and the ``.0`` of whole numbers."""
    return _WHOLE.sub(r"\1", str(name).strip())


def _warn_of_ids(role: str, ids: Sequence[ItemId]) -> None:
    empty = [name for name in ids if str(name).strip().lower() in _PLACEHOLDERS]
    if empty:
        rank_zero_warn(
            f"{empty[0]!r} is a {role} of the interactions: if it stands for a missing {role}, "
            "remove its rows"
        )
    first: dict[str, ItemId] = {}
    for name in ids:
        other = first.setdefault(common_form(name), name)
        if other != name:
            rank_zero_warn(
                f"{other!r} and {name!r} are different {role}s of the interactions: if they are "
                "the same, write their identifiers in one form"
            )
            return


def _warn_of_placeholders(times: np.ndarray, column: str) -> None:
    placeholders = int(((times == 0) | (times == -1)).sum())
    if placeholders and np.nanmedian(times) > 1e8:
        rank_zero_warn(
            f"{placeholders} of {len(times)} rows have 0 or -1 in the column {column!r}, which "
            "stands for the year 1970 and comes first: if it stands for a missing time, leave it "
            "empty, and these rows are dropped"
        )


def identifier(value: Any) -> ItemId:
    """Return a value as an identifier: an integer, or a string.

    Raises:
        ValueError: The value is not text, a number, or a similar scalar.
    """
    if isinstance(value, bytes | list | dict):
        raise ValueError(f"{str(value)[:80]} is a {type(value).__name__}: expected an identifier")
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, str | int) and not isinstance(value, bool) else str(value)


def in_order(table: InteractionTable) -> InteractionTable:
    """Sort by time. Interactions with equal timestamps are in an order that rows do not determine.

    The order of equal timestamps is that of a checksum of item and user, so it is the same for
    every order of the file's rows, and no item is systematically the later one. Rows without
    timestamps stay as they are.
    """
    if table.timestamps is None:
        return table
    keys = [
        np.array([zlib.crc32(f"{kind}{name}".encode()) for name in names], dtype=np.uint64)
        for kind, names in (("user", table.user_ids), ("item", table.item_ids))
    ]
    mixed = (keys[0][table.users] ^ keys[1][table.items]) * np.uint64(2654435761)
    mixed %= np.uint64(2**32)
    return table.rows(np.lexsort((table.items, mixed, table.timestamps)))


def first_of_each_pair(table: InteractionTable) -> InteractionTable:
    """Return the first row of each pair of user and item, in the order of the rows."""
    pairs = table.users * max(len(table.item_ids), 1) + table.items
    return table.rows(np.sort(np.unique(pairs, return_index=True)[1]))


def share_of_users_with_ties(table: InteractionTable) -> float:
    """Return the share of users who have two interactions with the same timestamp."""
    if table.timestamps is None or not len(table):
        return 0.0
    order = np.lexsort((table.timestamps, table.users))
    users, times = table.users[order], table.timestamps[order]
    is_tie = (users[1:] == users[:-1]) & (times[1:] == times[:-1])
    return len(np.unique(users[1:][is_tie])) / len(np.unique(users))


def k_core(users: np.ndarray, items: np.ndarray, min_user: int, min_item: int) -> np.ndarray:
    """Return the mask ``(rows,)`` of the largest subset that meets both minimum counts.

    Removing an item can leave a user with too few interactions, so the filter is repeated until
    nothing changes. The result does not depend on the order of removal.

    Args:
        users: The user of each interaction, ``(rows,)``.
        items: The item of each interaction, ``(rows,)``.
        min_user: Minimum number of interactions per user.
        min_item: Minimum number of interactions per item.
    """
    user_codes = np.unique(users, return_inverse=True)[1]
    item_codes = np.unique(items, return_inverse=True)[1]
    kept = np.ones(len(users), dtype=bool)
    while True:
        user_counts = np.bincount(user_codes[kept], minlength=user_codes.max(initial=0) + 1)
        item_counts = np.bincount(item_codes[kept], minlength=item_codes.max(initial=0) + 1)
        enough = (user_counts[user_codes] >= min_user) & (item_counts[item_codes] >= min_item)
        if not (kept & ~enough).any():
            return kept
        kept &= enough
