"""Folders of installed assets, and checks that their files are unchanged."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from lightning_plugins.assets.catalogue import CATALOGUE, Asset, find_asset

MANIFEST_NAME = "manifest.json"
_SMALL_FILE_BYTES = 2**20


class CorruptedAssetError(OSError):
    """An installed asset differs from what was installed; the message names the file."""


def asset_path(
    name: str, *, cache: Path | None = None, catalogue: tuple[Asset, ...] = CATALOGUE
) -> Path:
    """Return the folder of an installed asset, its files laid out as in its distribution.

    Sizes of all files, and hashes of those under 1 MiB, are compared with the manifest first
    (milliseconds); ``lightning-plugins assets list --verify`` hashes everything.

    Args:
        name: Name of an asset of the catalogue.
        cache: Folder of all assets; default :func:`cache_folder`.
        catalogue: The available assets; default :data:`~lightning_plugins.assets.CATALOGUE`.

    Raises:
        ValueError: No asset has this name.
        FileNotFoundError: The asset is not installed; the message contains the install command.
        CorruptedAssetError: A file of the asset is missing or was changed.
    """
    asset = find_asset(name, catalogue)
    folder = (cache or cache_folder()) / asset.folder_name
    if not folder.is_dir():
        raise FileNotFoundError(
            f"asset {name!r} ({asset.holds}) is not installed: "
            f"run `lightning-plugins assets install {name}`"
        )
    problem = find_corruption(asset, folder)
    if problem is not None:
        raise CorruptedAssetError(
            f"asset {name!r} is corrupted: {problem}: run `lightning-plugins assets install {name}`"
        )
    return folder


def cache_folder() -> Path:
    """Return ``LIGHTNING_PLUGINS_ASSETS``, or the assets folder of the user's cache."""
    chosen = os.environ.get("LIGHTNING_PLUGINS_ASSETS")
    if chosen:
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "lightning-plugins" / "assets"


def find_corruption(asset: Asset, folder: Path, *, every_hash: bool = False) -> str | None:
    """Return a description of the first changed or missing file of an installed asset, or ``None``.

    Args:
        asset: The catalogue's entry.
        folder: The folder of the installed asset.
        every_hash: Hash large files too; otherwise only their sizes are compared.
    """
    manifest_path = folder / MANIFEST_NAME
    try:
        manifest = json.loads(manifest_path.read_text("utf-8"))
        recorded = [(path, f["size"], f["sha256"]) for path, f in manifest["files"].items()]
        artefact_sha256 = manifest["artefact_sha256"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"{manifest_path} is missing or unreadable ({type(error).__name__})"
    if artefact_sha256 != asset.sha256:
        return f"{manifest_path} records an artefact other than the pinned one"
    for relative_path, size_bytes, sha256 in recorded:
        path = folder / relative_path
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != size_bytes:
            return f"{path} has {path.stat().st_size} bytes instead of {size_bytes}"
        if (every_hash or size_bytes < _SMALL_FILE_BYTES) and sha256_of(path) != sha256:
            return f"{path} was changed after the installation (SHA-256 differs)"
    return None


def write_manifest(asset: Asset, folder: Path) -> None:
    """Record size and SHA-256 of every file in ``folder``."""
    files = {
        path.relative_to(folder).as_posix(): {
            "size": path.stat().st_size,
            "sha256": sha256_of(path),
        }
        for path in _files_below(folder)
    }
    manifest = {
        "name": asset.name,
        "version": asset.version,
        "artefact_sha256": asset.sha256,
        "files": files,
    }
    with (folder / MANIFEST_NAME).open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files_below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())
