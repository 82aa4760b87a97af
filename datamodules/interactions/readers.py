"""Reads interactions: any table, a folder of MovieLens, or RecBole's atomic files."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_warn

from lightning_plugins.assets import asset_path
from lightning_plugins.datamodules.file_error_context import file_error_context
from lightning_plugins.datamodules.interactions.columns import (
    ITEM_ROLES,
    ROLES,
    item_facts,
    like_a_time,
    of_reviews,
    user_profiles,
    without_types,
)
from lightning_plugins.datamodules.interactions.interaction_table import (
    InteractionTable,
    of_same_ids,
)
from lightning_plugins.datamodules.interactions.movielens import read_movielens
from lightning_plugins.datamodules.interactions.recbole import read_recbole, read_recbole_file
from lightning_plugins.datamodules.tables import (
    describe_columns,
    find_columns,
    is_table,
    read_table,
)


def read_interactions(
    source: str,
    columns: Mapping[str, str],
    items: str | None = None,
    users: str | None = None,
) -> InteractionTable:
    """Detect the format of ``source`` and read its interactions.

    Args:
        source: A table, a folder of MovieLens or RecBole, a file of RecBole, ``u.data`` or
            ``ratings.dat`` of MovieLens, or the asset ``movielens-100k``.
        columns: Role -> column of a table, for columns that are not found by name.
        items: A table of items, joined by their identifiers, or None.
        users: A table of users, or None.

    Raises:
        FileNotFoundError: A path does not exist, or the asset is not installed.
        ValueError: The format is unknown, a column is missing or ambiguous, or a row is invalid.
        ImportError: pandas or pyarrow is not installed.
    """
    if source == "movielens-100k":
        path = asset_path("recbole") / "recbole" / "dataset_example" / "ml-100k"
    else:
        path = Path(source).expanduser()
    table = _read(source, path, columns)
    if items is not None:
        found = read_items(Path(items).expanduser(), columns)
        count, found = len(found), of_same_ids(found, table.item_ids)
        unknown = len(table.item_ids) - len(found)
        note = f"{items}: {count} items; {unknown} items of the interactions are not in it"
        if unknown == len(table.item_ids):
            raise ValueError(
                f"items={items!r}: no identifier of the interactions is in it, for example "
                f"{table.item_ids[0]!r}: check its column of the items"
            )
        table = replace(table, facts={**table.facts, **found}, notes=(*table.notes, note))
    if users is not None:
        found_users = without_types(read_table(Path(users).expanduser()))
        with file_error_context(Path(users)):
            profiles = of_same_ids(user_profiles(found_users, source=users), table.user_ids)
        count = len(table.user_ids) - len(profiles)
        note = f"{users}: {count} users of the interactions are not in it"
        table = replace(table, profiles={**table.profiles, **profiles}, notes=(*table.notes, note))
    return table


def read_items(path: Path, columns: Mapping[str, str]) -> dict:
    """Read a table of items; ``columns`` as for :func:`read_interactions`, where it has them."""
    table = without_types(read_table(path))
    given = {role: name for role, name in columns.items() if name in table.columns}
    allowed = {role.name for role in ITEM_ROLES}
    given = {role: name for role, name in given.items() if role in allowed}
    with file_error_context(path):
        found = find_columns(table, ITEM_ROLES, given, str(path))
        return item_facts(table, found, " " if path.suffix == ".item" else None)


def _read(source: str, path: Path, columns: Mapping[str, str]) -> InteractionTable:
    if path.is_file() and path.suffix == ".inter":
        return read_recbole_file(path)
    if path.is_file() and path.name in ("u.data", "ratings.dat"):  # MovieLens, without a header
        path = path.parent
    if path.is_file():
        return read_column_file(path, columns)
    if path.is_dir():
        for read in (read_movielens, read_recbole):
            table = read(path)
            if table is not None:
                return table
        tables = sorted(file.name for file in path.iterdir() if is_table(file.name))
        hint = f"; or set source to one of its tables: {', '.join(tables[:5])}" if tables else ""
        raise ValueError(
            f"source={source!r}: expected ratings.dat, ratings.csv or u.data of MovieLens, or "
            f".inter files of RecBole, in this folder{hint}"
        )
    raise FileNotFoundError(
        f"source={source!r}: no such file or folder; the embedded default is 'movielens-100k'"
    )


def read_column_file(path: Path, columns: Mapping[str, str]) -> InteractionTable:
    """Read a table with one interaction per row; see :data:`ROLES` for the columns.

    Raises:
        ValueError: A column is missing or ambiguous, or a row is invalid.
    """
    table = without_types(read_table(path))
    with file_error_context(path):
        found = find_columns(table, ROLES, columns, str(path))
        notes = []
        for role in of_reviews(table, found, columns):
            notes.append(
                f"column {found.pop(role)!r} differs between the rows of an item, so it is not the "
                f"{role} of the items"
            )
        unused = [name for name in table.columns if name not in found.values()]
        if "timestamp" not in found and (time := like_a_time(unused)):
            rank_zero_warn(
                f"{path}: no column is named as the timestamp, so the rows are taken as "
                f"chronological; if {time!r} has the times, set columns={{'timestamp': {time!r}}}"
            )
        known = {role.name for role in ITEM_ROLES}
        of_items = {role: name for role, name in found.items() if role in known}
        return InteractionTable.of_columns(
            table,
            found,
            item_facts(table, of_items),
            notes=[f"{path.name}: {len(table)} rows, {describe_columns(table, found)}", *notes],
        )
