"""Reads RecBole's atomic files: interactions, items, users, and published splits."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lightning_plugins.datamodules.file_error_context import file_error_context
from lightning_plugins.datamodules.interactions.columns import (
    ITEM_ROLES,
    ROLES,
    item_facts,
    user_profiles,
    without_types,
)
from lightning_plugins.datamodules.interactions.interaction_table import InteractionTable
from lightning_plugins.datamodules.tables import describe_columns, find_columns, read_table

if TYPE_CHECKING:
    import pandas

_PARTS = (("train",), ("valid", "validation", "dev"), ("test",))


def read_recbole(folder: Path) -> InteractionTable | None:
    """Read the ``.inter`` file of a folder, or the files ``NAME.train.inter``, ``valid``, ``test``.

    Source: https://recbole.io/docs/user_guide/data/atomic_files.html

    Returns:
        The interactions, or None if the folder has no ``.inter`` file.

    Raises:
        ValueError: There are several data sets, a column is missing, or a row is invalid.
    """
    files = sorted(folder.glob("*.inter"))
    if not files:
        return None
    if len(files) == 1:
        return read_recbole_file(files[0])
    split = {part: file for file in files if (part := _part(file)) is not None}
    if len(split) == len(files) and {0, 2} <= set(split):
        return _read(folder, [split[part] for part in sorted(split)], sorted(split))
    names = ", ".join(file.name for file in files)
    raise ValueError(
        f"{folder} holds several data sets ({names}): set source to one of these files; a split "
        "has the files NAME.train.inter, NAME.valid.inter and NAME.test.inter"
    )


def read_recbole_file(path: Path) -> InteractionTable:
    """Read one ``.inter`` file, with ``NAME.item`` and ``NAME.user`` beside it if they exist.

    Raises:
        ValueError: A column is missing, or a row is invalid.
    """
    return _read(path.parent, [path], None)


def _read(folder: Path, files: list[Path], parts: list[int] | None) -> InteractionTable:
    import pandas

    tables = [_atomic(file) for file in files]
    for file, table in zip(files, tables, strict=True):
        if "item_id_list" in table.columns:
            raise ValueError(
                f"{file} has a column item_id_list, the histories of augmented sequences: use "
                "the .inter file with one interaction per row"
            )
    table = pandas.concat(tables, ignore_index=True)
    name = files[0].name.removesuffix(".inter")
    name = name if parts is None else name.rpartition(".")[0]
    facts, profiles = {}, {}
    if (items := folder / f"{name}.item").is_file():
        rows = _atomic(items)
        with file_error_context(items):
            facts = item_facts(rows, find_columns(rows, ITEM_ROLES, source=str(items)), " ")
    if (users := folder / f"{name}.user").is_file():
        rows = _atomic(users)
        with file_error_context(users):
            profiles = user_profiles(rows, source=str(users))
    with file_error_context(files[0]):
        found = find_columns(table, ROLES[:4], source=str(files[0]))
        lengths = [len(one) for one in tables]
        return InteractionTable.of_columns(
            table,
            found,
            facts,
            profiles,
            None if parts is None else np.repeat(np.array(parts, dtype=np.int8), lengths),
            [f"{', '.join(file.name for file in files)}: {len(table)} rows, "
             f"{describe_columns(table, found)}"],
        )  # fmt: skip


def _atomic(file: Path) -> "pandas.DataFrame":
    """Read a table with tabs, or with RecBole's other usual ``field_separator``, the comma."""
    table = read_table(file, delimiter="\t")
    if len(table.columns) == 1 and "," in table.columns[0]:
        table = read_table(file, delimiter=",")
    return without_types(table)


def _part(file: Path) -> int | None:
    ending = file.name.removesuffix(".inter").rpartition(".")[2]
    return next((part for part, names in enumerate(_PARTS) if ending in names), None)
