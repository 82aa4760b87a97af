"""Folders of installed assets, and checks that their files are unchanged."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from lightning_plugins.assets.catalogue import CATALOGUE, Asset, find_asset
from lightning_plugins.inputs import parse_json, path_inside

MANIFEST_NAME = "manifest.json"
# (path, size, time of change, number) of a file -> SHA-256, so that a process hashes it once.
_hashes: dict[tuple[str, int, int, int], str] = {}


class CorruptedAssetError(OSError):
    """An installed asset differs from what was installed; the message names the file."""


def asset_path(
    name: str, *, cache: Path | None = None, catalogue: tuple[Asset, ...] = CATALOGUE
) -> Path:
    """Return the folder of an installed asset, its files laid out as in its distribution.

    Size and SHA-256 of every file are compared with the manifest first, and the manifest with the
    catalogue (0.1 s for 100 MB, once per process).

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
    with suppress(RuntimeError):  # of Path.home()
        return _users_cache() / "lightning-plugins" / "assets"
    raise OSError("no home directory: set HOME, or LIGHTNING_PLUGINS_ASSETS to a folder")


def _users_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def find_corruption(asset: Asset, folder: Path) -> str | None:
    """Return a description of the first changed or missing file of an installed asset, or ``None``.

    Args:
        asset: The catalogue's entry.
        folder: The folder of the installed asset.
    """
    manifest_path = folder / MANIFEST_NAME
    try:
        manifest = parse_json(manifest_path.read_text("utf-8"))
        recorded = [
            (path_inside(folder, path, str(manifest_path)), f["size"], f["sha256"])
            for path, f in manifest["files"].items()
        ]
        artefact_sha256 = manifest["artefact_sha256"]
        digest = files_digest({path: str(f["sha256"]) for path, f in manifest["files"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"{manifest_path} is missing or unreadable ({type(error).__name__})"
    if artefact_sha256 != asset.sha256:
        return f"{manifest_path} records an artefact other than the pinned one"
    if asset.files_sha256 and digest != asset.files_sha256:
        return f"{manifest_path} records other files than the catalogue"
    for path, size_bytes, sha256 in recorded:
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != size_bytes:
            return f"{path} has {path.stat().st_size} bytes instead of {size_bytes}"
        if _known_sha256_of(path) != sha256:
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


def files_digest(sha256_by_path: Mapping[str, str]) -> str:
    """Return the SHA-256 of a list of files, given as relative path -> SHA-256 of its content."""
    lines = sorted(f"{sha256}  {path}\n" for path, sha256 in sha256_by_path.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _known_sha256_of(path: Path) -> str:
    found = path.stat()
    key = (str(path), found.st_size, found.st_mtime_ns, found.st_ino)
    if key not in _hashes:
        _hashes[key] = sha256_of(path)
    return _hashes[key]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files_below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())
