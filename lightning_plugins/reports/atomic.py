"""Files that are either whole or absent."""

import os
from pathlib import Path
from uuid import uuid4


def write_text_atomically(path: Path, text: str) -> None:
    """:func:`write_bytes_atomically` of the text in UTF-8."""
    write_bytes_atomically(path, text.encode("utf-8"))


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary file in the same folder, then rename it over ``path``.

    The file is readable by those whom the process' umask allows, as any file it makes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:80]}.{uuid4().hex}")
    try:
        with temporary.open("xb") as file:  # tempfile's would stay private to this user
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
