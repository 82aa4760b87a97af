"""Reading of checkpoint files, of any source, as tensors and plain data."""

import shutil
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lightning_plugins.inputs.limits import require

_SECONDS_WITHOUT_DATA = 60
_CHUNK_BYTES = 1 << 20


def is_url(source: object) -> bool:
    """Return whether ``source`` is an ``http`` or ``https`` address."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


@contextmanager
def local_copy(source: Any) -> Iterator[Any]:
    """Yield a file that :func:`torch.load` reads: the source itself, or a copy if it is a URL.

    A URL is downloaded every time: torch's own cache is keyed by the last part of the URL alone, so
    that a file of another server with the same name would be returned.

    Raises:
        OSError: The download failed.
        LimitError: The file exceeds the limit on downloads.
    """
    if not is_url(source):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="lightning-plugins-") as folder:
        path = Path(folder) / "downloaded.ckpt"
        with (
            urllib.request.urlopen(source, timeout=_SECONDS_WITHOUT_DATA) as response,
            path.open("xb") as file,
        ):
            size = 0
            while chunk := response.read(_CHUNK_BYTES):
                size += len(chunk)
                require("download_bytes", size, source)
                file.write(chunk)
        yield path


def read_checkpoint(source: Any, map_location: Any = "cpu", mmap: bool = False) -> dict[str, Any]:
    """Read a checkpoint with ``weights_only=True``.

    Args:
        source: Path, URL (``http``, ``https``, or any that fsspec reads) or binary file.
        map_location: As for :func:`torch.load`.
        mmap: Map a local file instead of reading it, if only a part is needed.

    Raises:
        pickle.UnpicklingError: It contains an object other than tensors and plain data.
        ValueError: It is not a mapping, as a checkpoint of Lightning is.
    """
    with local_copy(source) as file:
        if isinstance(file, str) and "://" in file:
            import fsspec  # type: ignore[import-untyped]

            with fsspec.open(file, "rb") as opened:
                content = torch.load(opened, map_location=map_location, weights_only=True)
        else:
            is_mapped = mmap and isinstance(file, (str, Path)) and _is_zip(file)
            content = torch.load(
                file, map_location=map_location, weights_only=True, mmap=is_mapped or None
            )
    if not isinstance(content, dict):
        raise ValueError(f"{source}: expected a checkpoint of Lightning, got a {type(content)}")
    return content


def _is_zip(path: str | Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04"


def keep_local_copy(source: str, folder: str | Path) -> Path:
    """Download the URL ``source`` to ``folder`` and return the path of the copy."""
    with local_copy(source) as copy:
        return Path(shutil.move(copy, Path(folder) / copy.name))
