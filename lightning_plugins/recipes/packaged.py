"""Finding, combining and naming the recipes that come with the package."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lightning_plugins.recipes.merging import merge

_FOLDER = Path(__file__).parent
_OVERLAYS = "overlays"


@dataclass(frozen=True)
class Recipe:
    """A packaged recipe or overlay and the first line of its file."""

    name: str
    summary: str
    is_overlay: bool


def list_recipes() -> list[Recipe]:
    """All packaged recipes by name, then all overlays (named ``+overlay``)."""
    recipes = []
    for path in sorted(_FOLDER.glob("*/*.yaml")):
        is_overlay = path.parent.name == _OVERLAYS
        name = f"+{path.stem}" if is_overlay else f"{path.parent.name}/{path.stem}"
        first_line = path.read_text("utf-8").partition("\n")[0]
        recipes.append(Recipe(name, first_line.removeprefix("# "), is_overlay))
    return sorted(recipes, key=lambda recipe: (recipe.is_overlay, recipe.name))


def load_recipe(name: str) -> dict[str, Any]:
    """The merged configuration of ``BASE[+OVERLAY...]``, as LightningCLI reads it.

    Raises:
        ValueError: no such recipe or overlay; names the nearest ones.
    """
    base, *overlays = name.split("+")
    config = _load(base, f"{base}.yaml", is_overlay=False)
    for overlay in overlays:
        config = merge(config, _load(overlay, f"{_OVERLAYS}/{overlay}.yaml", is_overlay=True))
    return config


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
    config = yaml.safe_load(path.read_text("utf-8"))
    parent = config.pop("recipe", None)
    return config if parent is None else merge(load_recipe(parent), config)
