"""Hashes and versions that identify a result: plain data, and installed packages."""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Collection

_DISTRIBUTIONS = {
    "torch": "torch",
    "lightning": "lightning",
    "torchmetrics": "torchmetrics",
    "numpy": "numpy",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "transformers": "transformers",
    "tokenizers": "tokenizers",
}
_IMPORTED_BY = {"lightning": ("torch", "torchmetrics"), "transformers": ("tokenizers",)}


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


def versions(packages: Collection[str]) -> dict[str, str]:
    """Return the versions that a result depends on.

    Versions are read from the installed metadata; nothing is imported.

    Args:
        packages: Top-level names of the packages that the run imports.

    Returns:
        Python's version without the patch number, the architecture of the machine, and the versions
        of NumPy and of the numerical packages among ``packages``.
    """
    wanted = {"numpy", *packages}
    wanted |= {name for package in packages for name in _IMPORTED_BY.get(package, ())}
    found = {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "machine": platform.machine(),
    }
    for package, distribution in _DISTRIBUTIONS.items():
        if package not in wanted:
            continue
        try:
            found[distribution] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            found[distribution] = "absent"
    return found
