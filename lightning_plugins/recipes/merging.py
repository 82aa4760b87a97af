"""How an overlay changes a recipe."""

from typing import Any


def merge(base: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    """``base`` changed by ``overlay``; neither is modified.

    Mappings merge key by key and everything else is replaced, with two exceptions: ``key+``
    appends a list to the list at ``key``, and a different ``class_path`` drops the ``init_args``
    of the class it replaces.
    """
    merged = dict(base)
    if "class_path" in overlay and overlay["class_path"] != base.get("class_path"):
        merged.pop("init_args", None)
    for key, value in overlay.items():
        if key.endswith("+"):
            name = key[:-1]
            merged[name] = [*(merged.get(name) or []), *_as_list(value)]
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        elif isinstance(value, dict):
            merged[key] = merge({}, value)
        else:
            merged[key] = value
    return merged


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
