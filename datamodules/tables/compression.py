"""Reads the bytes of a file that may be packed; the content decides, not the name."""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from pathlib import Path, PurePath
from typing import Any

from lightning_plugins.inputs import LimitError, decompressed, listed

PACKED_SUFFIXES = (".gz", ".zst", ".zstd", ".bz2", ".xz", ".zip")
_ZSTD, _ZIP = b"\x28\xb5\x2f\xfd", b"PK\x03\x04"


def read_unpacked(path: Path) -> tuple[bytes, str]:
    """Return the bytes of a file after unpacking, and its name without the packing's suffix.

    Raises:
        ValueError: The archive is damaged, unpacks to more than a limit, or does not
            contain exactly one file.
    """
    data = path.read_bytes()
    name = path.name
    if PurePath(name).suffix.lower() in PACKED_SUFFIXES:
        name = PurePath(name).stem
    try:
        if data.startswith(b"\x1f\x8b"):
            return _limited(gzip.GzipFile(fileobj=io.BytesIO(data)), path), name
        if data.startswith(b"BZh"):
            return _limited(bz2.BZ2File(io.BytesIO(data)), path), name
        if data.startswith(b"\xfd7zXZ\x00"):
            return _limited(lzma.LZMAFile(io.BytesIO(data)), path), name
        if data.startswith(_ZSTD):
            import pyarrow

            reader = pyarrow.BufferReader(data)
            return _limited(pyarrow.CompressedInputStream(reader, "zstd"), path), name
        if data.startswith(_ZIP):
            return _only_member(data, path)
    except LimitError:
        raise
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is a damaged archive: {error}") from error
    return data, name


def _only_member(data: bytes, path: Path) -> tuple[bytes, str]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [info.filename for info in archive.infolist() if not info.is_dir()]
        if "[Content_Types].xml" in names:
            raise ValueError(f"{path} is an Excel workbook: save the sheet as CSV in UTF-8")
        names = [name for name in names if not name.startswith("__MACOSX/")]
        if len(names) != 1:
            raise ValueError(
                f"{path} contains {len(names)} files ({listed(names[:5])}): expected one; "
                "unpack the archive and give the file"
            )
        with archive.open(names[0]) as member:
            return _limited(member, path), PurePath(names[0]).name


def _limited(stream: Any, path: Path) -> bytes:
    return decompressed(stream, path).read()
