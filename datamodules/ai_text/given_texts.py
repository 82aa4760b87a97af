"""Texts to predict, from tables, files, folders, and standard input, with their ids."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_plugins.datamodules.ai_text.dataset_readers import TableOptions
from lightning_plugins.datamodules.ai_text.paired_texts import is_paired, texts_of
from lightning_plugins.datamodules.ai_text.text_columns import ID, PAIR_ROLES, TEXT, check_texts
from lightning_plugins.datamodules.ai_text.text_folders import NO_TEXTS
from lightning_plugins.datamodules.file_error_context import file_error_context
from lightning_plugins.datamodules.tables import (
    describe_columns,
    find_columns,
    is_missing,
    is_table,
)
from lightning_plugins.datamodules.tables.compression import read_unpacked
from lightning_plugins.datamodules.tables.encodings import NotTextError, decoded_prose

if TYPE_CHECKING:
    import pandas


class GivenText(NamedTuple):
    """A text to predict.

    Attributes:
        id: Its id in the table, unchanged; the row, counted from 1, in a table without ids; or the
            name of the file, with its folder below a folder that is given. In a table with a human
            text and an AI text per row, the column follows, such as ``7:human_answers[1]``.
        text: The text.
    """

    id: str
    text: str


def given_texts(path: str, options: TableOptions | None = None) -> list[GivenText]:
    """Return the texts of a table, a file, all files of a folder, or standard input (``-``).

    Rows without a text are kept, so that the output has one line per row. Files of a folder that
    are not texts are left out with a warning, as are folders of prompts and log-probabilities.

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: It contains no text, or the column of texts is ambiguous.
    """
    options = options or TableOptions()
    if path == "-":
        texts = [GivenText("-", sys.stdin.read())]
    else:
        place = Path(path).expanduser()
        if not place.exists():
            raise FileNotFoundError(f"predict_path={path!r}: no such file; use - for stdin")
        files = [place]
        if place.is_dir():
            files = sorted(
                file
                for file in place.rglob("*")
                if file.is_file()
                and file.name[0] != "."
                and not NO_TEXTS & set(file.relative_to(place).parts[:-1])
            )
        texts = []
        for file in files:
            name = file.relative_to(place).as_posix() if place.is_dir() else file.name
            try:
                texts += _texts_in_file(file, name, options)
            except NotTextError as error:
                if not place.is_dir():
                    raise
                rank_zero_warn(f"left out: {error}")
    if not any(one.text.strip() for one in texts):
        raise ValueError(f"predict_path={path!r}: contains no text")
    return texts


def _texts_in_file(file: Path, name: str, options: TableOptions) -> list[GivenText]:
    if not is_table(file):
        data, inner = read_unpacked(file)
        if not is_table(inner):
            return [GivenText(name, decoded_prose(data, file, options.encoding))]
    table = options.read(file)
    stated = {
        role: column for role, column in (options.columns or {}).items() if role in ("text", "id")
    }
    if "text" not in stated and is_paired(table, options.columns):
        return _texts_of_pairs(table, name, options)
    found = find_columns(table, (TEXT, ID), stated, name)
    rank_zero_info(f"{name}: {describe_columns(table, found)}; {len(table):,} rows")
    texts = table[found["text"]]
    with file_error_context(file):
        check_texts(texts)
    return [
        GivenText(row, "" if gone else str(text))
        for row, text, gone in zip(_ids(table, found, name), texts, is_missing(texts), strict=True)
    ]


def _texts_of_pairs(table: "pandas.DataFrame", name: str, options: TableOptions) -> list[GivenText]:
    known = {role.name for role in PAIR_ROLES}
    stated = {role: column for role, column in (options.columns or {}).items() if role in known}
    found = find_columns(table, PAIR_ROLES, stated, name)
    rank_zero_info(f"{name}: {describe_columns(table, found)}; {len(table):,} rows")
    given = []
    for row, identifier in enumerate(_ids(table, found, name)):
        for column in (found["human_text"], found["ai_text"]):
            cell = table[column].iloc[row]
            texts = texts_of(cell)
            for place, text in enumerate(texts):
                part = "" if isinstance(cell, str) else f"[{place}]"
                given.append(GivenText(f"{identifier}:{column}{part}", text))
    return given


def _ids(table: "pandas.DataFrame", found: Mapping[str, str], name: str) -> list[str]:
    """Return the identifier of each row: of its column, or its number from 1."""
    if "id" not in found:
        return [str(row) for row in range(1, len(table) + 1)]
    column = table[found["id"]]
    missing = is_missing(column)
    ids = ["" if gone else str(value) for value, gone in zip(column, missing, strict=True)]
    repeated = len(ids) - missing.sum() - len(set(ids) - {""})
    if missing.any() or repeated:
        rank_zero_warn(
            f"{name}: in the column {found['id']!r} of ids, {missing.sum()} rows have none (their "
            f"id is empty), and {repeated} rows repeat an id"
        )
    return ids
