"""Reads a table from a file in any of the usual formats, encodings and compressions."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from lightning_plugins.datamodules.file_error_context import file_error_context
from lightning_plugins.datamodules.tables.compression import PACKED_SUFFIXES, read_unpacked
from lightning_plugins.datamodules.tables.delimited import check_columns, read_delimited
from lightning_plugins.datamodules.tables.encodings import as_utf8, decoded
from lightning_plugins.datamodules.tables.records import read_records
from lightning_plugins.inputs import check_cells, check_rows, check_table_bytes
from lightning_plugins.optional_packages import requires

if TYPE_CHECKING:
    import pandas

_DELIMITED = (".csv", ".tsv", ".tab", ".inter", ".item", ".user")
_RECORDS = (".json", ".jsonl", ".ndjson")
_PARQUET = (".parquet", ".pq")
TABLE_SUFFIXES = (*_DELIMITED, *_RECORDS, *_PARQUET)
"""File name suffixes that name a table, before the suffix of a compression."""


def read_table(
    path: str | Path,
    encoding: str | None = None,
    delimiter: str | None = None,
    names: Sequence[str] | None = None,
) -> "pandas.DataFrame":
    """Read a table; what the arguments do not give is detected from the content of the file.

    - CSV, TSV and tables with any other delimiter of one character. All values are strings exactly
      as they stand in the file: ``007`` stays ``"007"``, ``NA`` stays ``"NA"``, an empty field is
      ``""``. Fields may be quoted with ``"``, contain line ends, and have any length.
    - JSON (a list of records, a dictionary of columns, or one list of records in a dictionary) and
      JSON lines. Strings and whole numbers are unchanged; a missing key is NaN.
    - Parquet, with the types of the file.

    The file may be packed with gzip, zstandard, bzip2 or xz, or be the only file of a zip archive.
    Text may be UTF-8 or UTF-16, with or without byte order mark. Other encodings that look like
    Western European text are read as latin-1 or cp1252, with a warning that names the encoding;
    any other encoding has to be given.

    Args:
        path: The file.
        encoding: Encoding of a text format; None to detect it.
        delimiter: Character between the columns of a delimited table; None to detect it.
        names: Names of the columns of a delimited table whose first row is data; None if the first
            row contains the names.

    Returns:
        One row per record, numbered from 0.

    Raises:
        FileNotFoundError: The file does not exist.
        ImportError: pandas or pyarrow is not installed.
        ValueError: The encoding or the delimiter is ambiguous, the content is not a table, or it
            exceeds a limit of :mod:`lightning_plugins.inputs`. The message names the file, and the
            row where one is concerned.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"path={str(path)!r}: no such file")
    with requires("pandas", "pyarrow", by="reading a table", extra="text"):
        import pandas  # noqa: F401
        import pyarrow
    with file_error_context(file):
        data, inner = read_unpacked(file)
        if data[:4] == b"PAR1":
            return _read_parquet(data, file)
        if data[:6] == b"ARROW1" or PurePath(inner).suffix.lower() in _PARQUET:
            raise ValueError(f"{file} is not a Parquet file: save it as Parquet, CSV or JSON")
        try:
            if _is_json(inner, data, delimiter, names):
                return read_records(decoded(data, file, encoding), file)
            suffix = PurePath(inner).suffix.lower()
            data = as_utf8(data, file, encoding)
            return read_delimited(data, file, suffix, delimiter, names)
        except pyarrow.ArrowException as error:
            raise ValueError(f"{file} cannot be read: {error}") from error


def is_table(path: str | Path) -> bool:
    """Return whether the name of a file is the name of a table, packed or not."""
    suffixes = [suffix.lower() for suffix in PurePath(path).suffixes]
    while suffixes and suffixes[-1] in PACKED_SUFFIXES:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in TABLE_SUFFIXES


def _is_json(name: str, data: bytes, delimiter: str | None, names: Sequence[str] | None) -> bool:
    suffix = PurePath(name).suffix.lower()
    if suffix in _RECORDS:
        return True
    if suffix in _DELIMITED or delimiter is not None or names is not None:
        return False
    start = data[:64].lstrip(b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n")
    return start[:1] in (b"{", b"[")


def _read_parquet(data: bytes, path: Path) -> "pandas.DataFrame":
    import pyarrow
    from pyarrow import parquet, types

    try:
        file = parquet.ParquetFile(pyarrow.BufferReader(data))
        check_rows(file.metadata.num_rows, path)
        check_table_bytes(_bytes_before_decoding(file.metadata), path)
        schema = file.schema_arrow
        texts = [f.name for f in schema if types.is_string(f.type) or types.is_binary(f.type)]
        # A repeated text is stored once; as a dictionary it also takes memory once.
        table = parquet.ParquetFile(pyarrow.BufferReader(data), read_dictionary=texts).read()
        check_cells(_lengths(table), path)
        table = table.cast(_with_texts(schema, table))
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"not a complete Parquet file: {error}") from error
    check_columns(table, path)
    return table.to_pandas(integer_object_nulls=True, ignore_metadata=True)


def _with_texts(schema: Any, table: Any) -> Any:
    """Return the schema with texts instead of binary columns whose values are all UTF-8."""
    import pyarrow
    from pyarrow import types

    for place, field in enumerate(schema):
        if types.is_binary(field.type) or types.is_large_binary(field.type):
            with contextlib.suppress(pyarrow.ArrowInvalid):
                table.column(place).cast(pyarrow.large_string())
                schema = schema.set(place, field.with_type(pyarrow.large_string()))
    return schema


def _bytes_before_decoding(metadata: Any) -> int:
    """Return the memory of all values, with 8 bytes for each text; repeated values are stored once.

    The file's own sizes are those of encoded values.
    """
    bits = {"BOOLEAN": 1, "INT32": 32, "FLOAT": 32, "INT96": 96}
    total = 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            total += column.num_values * bits.get(column.physical_type, 64)
    return total // 8


def _lengths(table: Any) -> Iterator[tuple[int, int]]:
    """Yield the longest text and the length of all texts of each part of a column."""
    from pyarrow import compute, types

    for column in table.columns:
        for part in column.chunks if types.is_dictionary(column.type) else ():
            lengths = compute.binary_length(part.dictionary)
            all_lengths = compute.sum(compute.take(lengths, part.indices))
            yield compute.max(lengths).as_py() or 0, all_lengths.as_py() or 0
