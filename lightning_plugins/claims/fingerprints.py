"""Hashes and versions that identify a result: configuration, source files, installed packages."""

import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import platform
from collections.abc import Callable
from functools import cache
from pathlib import Path

import lightning_plugins

_FOLDERS_OUTSIDE = ("callbacks", "datamodules", "litmodels", "simulators")
_EXCLUDED_FOLDER = "reports"
_DISTRIBUTIONS = (
    "torch",
    "lightning",
    "torchmetrics",
    "numpy",
    "scipy",
    "scikit-learn",
    "transformers",
    "tokenizers",
)


def canonical_json(value: object) -> str:
    """Return JSON with sorted keys, without spaces, ASCII only: equal values have equal texts.

    Raises:
        ValueError: If the value contains anything except str, int, finite float, bool, None,
            lists, tuples and dicts, so that a hash never depends on a ``repr``.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"only plain finite JSON data can be hashed: {error}") from error


def sha256_of(value: object) -> str:
    """Return the hexadecimal SHA-256 of :func:`canonical_json`."""
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the numerical packages, and the machine architecture.

    Versions are read from the installed metadata; nothing is imported.
    """
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def source_sha256(run: Callable[..., object] | None = None) -> str:
    """Return a hash of every ``.py`` and ``.yaml`` file of the package except ``reports/``.

    importlib locates the folders that a checkout keeps next to the package, without importing
    them, so a wheel and a checkout of the same sources have the same hash. If the file that
    defines ``run`` is outside the package, it is included.
    """
    own = _package_files()
    digest = hashlib.sha256()
    for name, path in sorted(own.items()):
        digest.update(f"{name}\0{_file_sha256(path)}\n".encode())
    outside = _file_of(run) if run is not None else None
    if outside is not None and outside not in own.values():
        digest.update(f"{outside.name}\0{_file_sha256(outside)}\n".encode())
    return digest.hexdigest()


def _package_files() -> dict[str, Path]:
    files = _files_below("", Path(lightning_plugins.__file__).resolve().parent)
    for folder in _FOLDERS_OUTSIDE:
        spec = importlib.util.find_spec(f"{lightning_plugins.__name__}.{folder}")
        for location in (spec.submodule_search_locations or []) if spec else []:
            files |= _files_below(f"{folder}/", Path(location).resolve())
    return {name: path for name, path in files.items() if name.split("/")[0] != _EXCLUDED_FOLDER}


def _files_below(prefix: str, root: Path) -> dict[str, Path]:
    return {
        prefix + path.relative_to(root).as_posix(): path
        for pattern in ("*.py", "*.yaml")
        for path in root.rglob(pattern)
    }


def _file_of(run: Callable[..., object]) -> Path | None:
    try:
        return Path(inspect.getfile(run)).resolve()
    except TypeError:
        return None


@cache
def _content_sha256(path: Path, modified_ns: int, size: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _file_sha256(path: Path) -> str:
    status = path.stat()
    return _content_sha256(path, status.st_mtime_ns, status.st_size)
