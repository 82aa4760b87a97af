"""Finds the packaged recipes and merges bases with overlays."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_plugins.inputs.messages import quoted
from lightning_plugins.recipes.sources import place_of, plain, read_mapping

_FOLDER = Path(__file__).parent
_OVERLAYS = "overlays"


@dataclass(frozen=True)
class Recipe:
    """A packaged recipe or overlay; ``summary`` is the first line of its file."""

    name: str
    summary: str
    is_overlay: bool


def list_recipes() -> list[Recipe]:
    """Return all packaged recipes sorted by name, then all overlays (named ``+overlay``)."""
    recipes = []
    for path in sorted(_FOLDER.glob("*/*.yaml")):
        is_overlay = path.parent.name == _OVERLAYS
        name = f"+{path.stem}" if is_overlay else f"{path.parent.name}/{path.stem}"
        first_line = path.read_text("utf-8").partition("\n")[0]
        recipes.append(Recipe(name, first_line.removeprefix("# "), is_overlay))
    return sorted(recipes, key=lambda recipe: (recipe.is_overlay, recipe.name))


def load_recipe(name: str) -> dict[str, Any]:
    """Return the merged configuration of ``BASE[+OVERLAY...]`` in the form LightningCLI reads.

    Raises:
        ValueError: If a recipe or overlay does not exist; suggests similar names.
    """
    config: dict[str, Any] = plain(load_with_places(name))
    return config


def load_with_places(name: str) -> dict[str, Any]:
    """Return the merged configuration with the place of each value; see :func:`load_recipe`."""
    base, *overlays = name.split("+")
    config = _load(base, f"{base}.yaml", is_overlay=False)
    for overlay in overlays:
        config = merge(config, _load(overlay, f"{_OVERLAYS}/{overlay}.yaml", is_overlay=True))
    return config


def read_file(path: str | Path, name: str | None = None) -> dict[str, Any]:
    """Return the configuration of a YAML file, merged with the recipe that it starts from.

    Args:
        path: The file; its key ``recipe`` names a recipe that its other keys change.
        name: The name for messages (default: the path).

    Raises:
        ValueError: The file is not valid, or there is no such recipe.
    """
    return with_recipe(read_mapping(_text(Path(path)), name or str(path)))


def with_recipe(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with places, merged with the recipe of its key ``recipe``.

    Raises:
        ValueError: There is no such recipe.
    """
    if "recipe" not in config:
        return config
    place = place_of(config, ["recipe"])
    config = dict(config)
    parent = plain(config.pop("recipe"))
    if not isinstance(parent, str):
        raise ValueError(f"{place}: recipe: expected the name of a recipe, got {quoted(parent)}")
    try:
        return merge(load_with_places(parent), config)
    except ValueError as error:
        raise ValueError(f"{place}: recipe: {error}") from None


def merge(base: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` changed by ``overlay``; neither is modified.

    Mappings are merged key by key, and other values are replaced, with two exceptions: ``key+``
    appends a list to the list at ``key``, and a different ``class_path`` drops the ``init_args``
    of the class that it replaces.
    """
    merged = dict(base)
    if "class_path" in overlay and overlay["class_path"] != base.get("class_path"):
        merged.pop("init_args", None)
    for key, value in overlay.items():
        if key.endswith("+"):
            name = key[:-1]
            added = value if isinstance(value, list) else [value]
            merged[name] = [*(merged.get(name) or []), *added]
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        elif isinstance(value, dict):
            merged[key] = merge({}, value)
        else:
            merged[key] = value
    return merged


def _load(name: str, relative: str, is_overlay: bool) -> dict[str, Any]:
    path = _FOLDER / relative
    known = [recipe.name for recipe in list_recipes() if recipe.is_overlay == is_overlay]
    if (f"+{name}" if is_overlay else name) not in known:
        kind = "overlay" if is_overlay else "recipe or file"
        near = difflib.get_close_matches(name, [k.removeprefix("+") for k in known], 3, 0.4)
        hint = (
            f"did you mean {' or '.join(near)}?" if near else "see `lightning-plugins recipes list`"
        )
        raise ValueError(f"no {kind} named {name!r}: {hint}")
    return read_file(path, f"+{name}" if is_overlay else name)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: the file is not UTF-8 text") from error
