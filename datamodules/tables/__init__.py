"""The suite's reader of tables: files of other people, and the roles of their columns."""

from lightning_plugins.datamodules.tables.reader import TABLE_SUFFIXES, is_table, read_table
from lightning_plugins.datamodules.tables.roles import Role, describe_columns, find_columns
from lightning_plugins.datamodules.tables.values import (
    is_missing,
    missing_rows,
    numbers,
    timestamps,
)

__all__ = [
    "TABLE_SUFFIXES",
    "Role",
    "describe_columns",
    "find_columns",
    "is_missing",
    "is_table",
    "missing_rows",
    "numbers",
    "read_table",
    "timestamps",
]
