"""Reading and replacing one element of a batch, by its place or name."""

import copy
from collections.abc import Mapping, MutableMapping
from typing import Any

Key = int | str


def element_of(batch: Any, key: Key, argument: str) -> Any:
    """The element of ``batch`` that ``key`` names: a place in a sequence, or a mapping's key.

    Args:
        batch: a list, tuple or mapping.
        key: place or name.
        argument: of the caller, which gave ``key``; named in the error.

    Raises:
        ValueError: a batch of another kind, or without this element.
    """
    if isinstance(batch, (list, tuple)) and isinstance(key, int) and 0 <= key < len(batch):
        return batch[key]
    if isinstance(batch, Mapping) and key in batch:
        return batch[key]
    if isinstance(batch, Mapping):
        what = f"a mapping with the keys {', '.join(map(repr, batch))}"
    elif isinstance(batch, (list, tuple)):
        what = f"a {type(batch).__name__} of {len(batch)} elements"
    else:
        what = f"a {type(batch).__name__}"
    raise ValueError(
        f"{argument}={key!r}: the batch is {what}; give the place in a tuple or list, or the key "
        "of a dictionary"
    )


def with_element(batch: Any, key: Key, value: Any) -> Any:
    """A shallow copy of ``batch`` with another element; ``batch`` itself is not modified."""
    if isinstance(batch, MutableMapping):
        changed = copy.copy(batch)
        changed[key] = value
        return changed
    elements = list(batch)
    elements[key] = value  # type: ignore[index]
    if isinstance(batch, list):
        return elements
    return batch._replace(**{batch._fields[key]: value}) if _is_named(batch) else tuple(elements)


def _is_named(batch: Any) -> bool:
    return hasattr(batch, "_fields") and hasattr(batch, "_replace")
