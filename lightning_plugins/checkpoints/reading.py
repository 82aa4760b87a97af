"""Reading of checkpoint files, of any source, as tensors and plain data."""

import shutil
import tempfile
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lightning_plugins.checkpoints.sharded import check_sharded, is_sharded_checkpoint, joined
from lightning_plugins.inputs.limits import require

_SECONDS_WITHOUT_DATA = 60
_LEAST_BYTES_PER_SECOND = 100
_CHUNK_BYTES = 1 << 20


def is_url(source: object) -> bool:
    """Return whether ``source`` is an ``http`` or ``https`` address."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


@contextmanager
def local_copy(source: Any) -> Iterator[Any]:
    """Yield a file that :func:`torch.load` reads: the source itself, or a copy.

    URLs and folders of sharded checkpoints are copied.

    A URL is downloaded every time: torch's own cache is keyed by the last part of the URL alone, so
    that a file of another server with the same name would be returned.

    Raises:
        OSError: The download failed, or is slower than 100 bytes per second.
        LimitError: The file exceeds the limit on downloads.
        pickle.UnpicklingError: A sharded checkpoint contains more than tensors and plain data.
    """
    if isinstance(source, str | Path) and is_sharded_checkpoint(source):
        check_sharded(Path(source))
        with tempfile.TemporaryDirectory(prefix="lightning-plugins-") as folder:
            yield joined(Path(source), Path(folder) / "joined.ckpt")
        return
    if not is_url(source):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="lightning-plugins-") as folder:
        path = Path(folder) / "downloaded.ckpt"
        with _response(source) as response, path.open("xb") as file:
            size, begin = 0, time.monotonic()
            while chunk := response.read1(_CHUNK_BYTES):
                size += len(chunk)
                require("download_bytes", size, source)
                file.write(chunk)
                seconds = time.monotonic() - begin
                if seconds > _SECONDS_WITHOUT_DATA and size < _LEAST_BYTES_PER_SECOND * seconds:
                    raise TimeoutError(f"{source}: {size} bytes in {seconds:.0f} s")
            if response.length:
                raise OSError(f"{source}: the connection ended after {size} bytes")
        yield path


def _response(source: str) -> Any:
    """Open a URL; its headers must be complete within 60 s, however slowly they arrive."""
    outcome: list[Any] = []

    def open_url() -> None:
        try:
            outcome.append(urllib.request.urlopen(source, timeout=_SECONDS_WITHOUT_DATA))
        except Exception as error:  # raised again by the caller's thread
            outcome.append(error)

    # The time-out of a socket restarts with every byte.
    thread = threading.Thread(target=open_url, daemon=True)
    thread.start()
    thread.join(_SECONDS_WITHOUT_DATA)
    if not outcome:
        raise TimeoutError(f"{source}: no reply within {_SECONDS_WITHOUT_DATA} s")
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def read_checkpoint(source: Any, map_location: Any = "cpu", mmap: bool = False) -> dict[str, Any]:
    """Read a checkpoint with ``weights_only=True``.

    Args:
        source: Path, URL (``http``, ``https``, or any that fsspec reads) or binary file.
        map_location: As for :func:`torch.load`.
        mmap: Map a local file instead of reading it, if only a part is needed.

    Raises:
        pickle.UnpicklingError: It contains an object other than tensors and plain data.
        ValueError: It is not a mapping, as a checkpoint of Lightning is, or it is compressed.
    """
    with local_copy(source) as file:
        if isinstance(file, str) and "://" in file:
            import fsspec  # type: ignore[import-untyped]

            with fsspec.open(file, "rb") as opened:
                _check_stored(opened, source)
                content = torch.load(opened, map_location=map_location, weights_only=True)
        else:
            is_zip = _check_stored(file, source)
            is_mapped = mmap and isinstance(file, (str, Path)) and is_zip
            content = torch.load(
                file, map_location=map_location, weights_only=True, mmap=is_mapped or None
            )
    if not isinstance(content, dict):
        raise ValueError(f"{source}: expected a checkpoint of Lightning, got a {type(content)}")
    return content


def _check_stored(file: Any, source: Any) -> bool:
    """Return whether a file is a zip archive, after a check that its parts are not compressed.

    torch does not compress, but reads compressed parts, which can be 1,000 times larger.
    """
    place = file.tell() if hasattr(file, "seek") else None
    try:
        with zipfile.ZipFile(file) as archive:
            packed = any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist())
    except zipfile.BadZipFile:
        return False
    finally:
        if place is not None:
            file.seek(place)
    if packed:
        raise ValueError(f"{source}: its parts are compressed, as torch does not write them")
    return True


def keep_local_copy(source: str, folder: str | Path) -> Path:
    """Download the URL ``source`` to ``folder`` and return the path of the copy."""
    with local_copy(source) as copy:
        return Path(shutil.move(copy, Path(folder) / copy.name))
