"""Texts to predict, from tables, files, folders, and standard input, with their ids."""

import sys
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch.utilities import rank_zero_info

from lightning_plugins.datamodules.ai_text.dataset_readers import TableOptions
from lightning_plugins.datamodules.ai_text.text_columns import ID, TEXT
from lightning_plugins.datamodules.tables import (
    describe_columns,
    find_columns,
    is_missing,
    is_table,
)
from lightning_plugins.datamodules.tables.encodings import decoded


class GivenText(NamedTuple):
    """A text to predict.

    Attributes:
        id: Its id in the table, unchanged; the row, counted from 1, in a table without ids; or the
            name of the file.
        text: The text.
    """

    id: str
    text: str


def given_texts(path: str, options: TableOptions | None = None) -> list[GivenText]:
    """Return the texts of a table, a file, all files of a folder, or standard input (``-``).

    Rows without a text are kept, so that the output has one line per row.

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
            files = sorted(x for x in place.rglob("*") if x.is_file() and x.name[0] != ".")
        texts = [text for file in files for text in _texts_in_file(file, options)]
    if not any(one.text.strip() for one in texts):
        raise ValueError(f"predict_path={path!r}: contains no text")
    return texts


def _texts_in_file(file: Path, options: TableOptions) -> list[GivenText]:
    if not is_table(file):
        return [GivenText(file.name, decoded(file.read_bytes(), file, options.encoding))]
    table = options.read(file)
    stated = {
        role: name for role, name in (options.columns or {}).items() if role in ("text", "id")
    }
    found = find_columns(table, (TEXT, ID), stated, file.name)
    rank_zero_info(f"{file.name}: {describe_columns(table, found)}; {len(table):,} rows")
    ids = table[found["id"]] if "id" in found else range(1, len(table) + 1)
    texts = table[found["text"]]
    return [
        GivenText(str(name), "" if gone else str(text))
        for name, text, gone in zip(ids, texts, is_missing(texts), strict=True)
    ]
