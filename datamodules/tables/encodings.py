"""Decodes the bytes of a text file whose encoding nobody stated."""

import codecs
import re
import warnings
from pathlib import Path

# UTF-32 stands first: its little-endian mark begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_EXAMINED_BYTES = 1 << 20
_HIGH_RUN = re.compile(rb"[\x80-\xff]+")
# Quotation marks, dashes, the ellipsis and the euro sign of cp1252, as word processors write them.
_C1 = re.compile(rb"[\x80-\x9f]")
_C1_IN_WORD = re.compile(rb"(?<=[A-Za-z])[\x80-\x90\x93-\x95\x98-\x9f](?=[a-z])")
_CONTROLS = re.compile(rb"[\x01-\x08\x0e-\x1a\x1c-\x1f]")
_DOCUMENTS = (b"%PDF-", rb"{\rtf")
_ASKED = ("cp1252", "cp1250", "cp1251", "koi8-r", "mac-roman", "cp850", "gb18030", "shift_jis")


class NotTextError(ValueError):
    """A file is not a text."""


def decoded(data: bytes, path: Path, encoding: str | None = None) -> str:
    """Return the text of ``data`` without its byte order mark.

    Args:
        data: Content of a text file.
        path: Name of the file, for messages.
        encoding: Encoding of the content; None to detect it.

    Raises:
        ValueError: The content is not in ``encoding``, or the encoding is ambiguous or unknown.
    """
    found = encoding or _encoding(data, path)
    try:
        text = data.decode(found)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is no text in {found.upper()}: see its byte {error.start}; expected another "
            "encoding=NAME, or an undamaged file"
        ) from error
    except LookupError as error:
        raise ValueError(f"encoding={encoding!r}: Python has no encoding of this name") from error
    return text.removeprefix("\ufeff")


def as_utf8(data: bytes, path: Path, encoding: str | None = None) -> bytes:
    """Return ``data`` in UTF-8 without byte order mark; as :func:`decoded`, with less memory."""
    if encoding is None and not data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        data = data.removeprefix(codecs.BOM_UTF8)
        encoding = _encoding(data, path)
        if encoding == "utf-8" and _decodes(data, encoding):
            return data
    return decoded(data, path, encoding).encode()


def decoded_prose(data: bytes, path: Path, encoding: str | None = None) -> str:
    """Return the text of a file that is one text; as :func:`decoded`.

    Raises:
        NotTextError: The file is not a text.
        ValueError: See :func:`decoded`.
    """
    if data.startswith(_DOCUMENTS) or (encoding is None and _is_binary(data[:_EXAMINED_BYTES])):
        raise NotTextError(f"{path} is not a text file: save it as plain text in UTF-8")
    return decoded(data, path, encoding)


def _is_binary(data: bytes) -> bool:
    """Return whether bytes contain zeros or many control characters, which no text has."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
        return False
    if _utf16_without_mark(data[:4096]):
        return False
    return b"\x00" in data or len(_CONTROLS.findall(data)) > 0.01 * len(data)


def _encoding(data: bytes, path: Path) -> str:
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name
    if wide := _utf16_without_mark(data[:4096]):
        return wide
    if data.isascii():
        return "utf-8"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return _not_utf8(data, error, path)
    return "utf-8"


def _utf16_without_mark(data: bytes) -> str | None:
    """Latin text in UTF-16 has a zero in almost every second byte."""
    half = len(data) // 2
    if half < 2 or b"\x00" not in data:
        return None
    zeros = [data[first : 2 * half : 2].count(0) / half for first in (0, 1)]
    if zeros[1] > 0.4 and zeros[0] < 0.05:
        return "utf-16-le"
    if zeros[0] > 0.4 and zeros[1] < 0.05:
        return "utf-16-be"
    return None


def _not_utf8(data: bytes, error: UnicodeDecodeError, path: Path) -> str:
    text = data.decode("utf-8", "surrogateescape")
    damaged = sum("\udc80" <= letter <= "\udcff" for letter in text)
    if sum(letter > "\x7f" for letter in text) > 2 * damaged:
        return "utf-8"  # mostly valid, so it is a damaged file, which is refused
    first = max(0, error.start - _EXAMINED_BYTES // 2)
    part = data[first : first + _EXAMINED_BYTES]
    high = sum(map(len, _HIGH_RUN.findall(part)))
    in_runs = sum(len(run) for run in _HIGH_RUN.findall(part) if len(run) > 2)
    letters = len(re.findall(rb"[A-Za-z]", part))
    if in_runs > 0.2 * high or high > 0.3 * letters or _C1_IN_WORD.search(part):
        candidates = [name for name in _ASKED if _decodes(data, name)]
        raise ValueError(
            f"{path} is not in UTF-8 (see its byte {error.start}), and its encoding is ambiguous: "
            f"expected encoding=NAME; it could be {', '.join(candidates)}"
        )
    found = "cp1252" if _C1.search(data) and _decodes(data, "cp1252") else "latin-1"
    around = data[max(0, error.start - 12) : error.start + 12].decode(found).split()
    word = next((word for word in around if not word.isascii()), "")
    warnings.warn(
        f"{path} is not in UTF-8: read as {found}, for example {word!r}; if this is wrong, set "
        "encoding to the right name, such as cp1250",
        stacklevel=2,
    )
    return found


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
