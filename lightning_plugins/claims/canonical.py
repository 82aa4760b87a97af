"""One JSON text for one value, so that equal configurations have equal hashes."""

import hashlib
import json


def canonical_json(value: object) -> str:
    """JSON with sorted keys, no spaces and ASCII only.

    Raises:
        ValueError: if the value holds anything but str, int, finite float, bool, None, lists,
            tuples and dicts, so that a hash never depends on a ``repr``.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"only plain finite JSON data can be hashed: {error}") from error


def sha256_of(value: object) -> str:
    """Hexadecimal SHA-256 of :func:`canonical_json`."""
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()
