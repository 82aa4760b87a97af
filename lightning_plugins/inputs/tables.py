"""Checks for tables before they are decoded."""

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from lightning_plugins.inputs.limits import LimitError, is_raised, limit, require

_ANY_FILE_BYTES = 512 << 20
_LARGEST_RATIO = 200


def check_rows(rows: int, path: str | os.PathLike[str]) -> None:
    """Check the number of rows of a table.

    By default a table can have 2 million rows, and more if its file has at least one byte per row:
    a small file with many rows repeats itself, as a decompression bomb does. If the environment
    variable of the limit is set, its value is the limit.

    Args:
        rows: Rows, known from the file's metadata or counted while reading.
        path: The file.

    Raises:
        LimitError: The table has too many rows.
    """
    if rows <= limit("table_rows"):
        return
    if is_raised("table_rows") or rows > os.stat(path).st_size:
        raise LimitError("table_rows", rows, str(path))


def check_table_bytes(amount: int, path: str | os.PathLike[str]) -> None:
    """Check the memory of a table, or of its decompressed text.

    A file that unpacks to more than 200 times its size, and to more than 512 MiB, repeats itself.
    If the environment variable of the limit is set, its value alone is the limit.

    Args:
        amount: Bytes.
        path: The file, packed as it is.

    Raises:
        LimitError: The table is too large.
    """
    require("table_bytes", amount, str(path))
    if amount > _ANY_FILE_BYTES and not is_raised("table_bytes"):
        allowed = max(_ANY_FILE_BYTES, _LARGEST_RATIO * os.stat(path).st_size)
        if amount > allowed:
            raise LimitError("table_bytes", amount, str(path), allowed)


def check_cells(lengths: Iterable[tuple[int, int]], path: str | os.PathLike[str]) -> None:
    """Check the lengths of the texts of a table.

    Args:
        lengths: For each column, or part of one: length of the longest text, and of all texts.
        path: The file.

    Raises:
        LimitError: A text, or all texts together, are too long.
    """
    total = 0
    for longest, in_all in lengths:
        require("cell_characters", longest, str(path))
        total += in_all
        check_table_bytes(total, path)


def decompressed(stream: IO[bytes], path: Path) -> IO[bytes]:
    """Return a decompressing stream that raises when more than a limit was read from it.

    Args:
        stream: For example an open ``gzip`` or ``zstd`` file.
        path: The file.
    """
    return io.BufferedReader(_Bounded(stream, path))


class _Bounded(io.RawIOBase):
    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream, self._path = stream, path
        self._read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        content = self._stream.read(len(buffer))
        self._read += len(content)
        check_table_bytes(self._read, self._path)
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._stream.close()
        super().close()
