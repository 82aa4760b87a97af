"""Reads the bytes of a file that may be packed; the content decides, not the name."""

import bz2
import gzip
import io
import lzma
import re
import zipfile
import zlib
from pathlib import Path, PurePath
from typing import Any

from lightning_plugins.inputs import LimitError, decompressed, listed

PACKED_SUFFIXES = (".gz", ".zst", ".zstd", ".bz2", ".xz", ".zip")
_ZIP = b"PK\x03\x04"
# A frame of data, or a skippable frame, which parallel compressors write first.
_ZSTD = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL)
_TAR = b"ustar"


def read_unpacked(path: Path) -> tuple[bytes, str]:
    """Return the bytes of a file after unpacking, and its name without the packing's suffix.

    Raises:
        ValueError: The archive is damaged, unpacks to more than a limit, or does not
            contain exactly one file.
    """
    data, name = _unpacked(path)
    if data[257:262] == _TAR:
        raise ValueError(f"{path} is a tar archive: unpack it and give the file")
    return data, name


def _unpacked(path: Path) -> tuple[bytes, str]:
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
        if _ZSTD.match(data):
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
            if any(name.startswith("word/") for name in names):
                raise ValueError(f"{path} is a Word document: save it as plain text in UTF-8")
            raise ValueError(f"{path} is an Excel workbook: save the sheet as CSV in UTF-8")
        names = [name for name in names if not name.startswith("__MACOSX/")]
        if len(names) != 1:
            raise ValueError(
                f"{path} contains {len(names)} files ({listed(names[:5])}): expected one; "
                "unpack the archive and give the file"
            )
        try:
            with archive.open(names[0]) as member:
                return _limited(member, path), PurePath(names[0]).name
        except (RuntimeError, NotImplementedError) as error:  # a password, a rare compression
            raise ValueError(f"{path}: {error}: unpack the archive and give the file") from error


def _limited(stream: Any, path: Path) -> bytes:
    return decompressed(stream, path).read()
