"""Packaged YAML recipes: a base plus overlays of a few lines.

A recipe is named by its path without ``.yaml``: ``image/digits``. An overlay changes any recipe:
``image/digits+late_sam``. A file may itself start from such a combination, with the line
``recipe: image/digits+late_sam``, and change more; its own keys win.
"""

from lightning_plugins.recipes.merging import merge
from lightning_plugins.recipes.packaged import Recipe, list_recipes, load_recipe

__all__ = ["Recipe", "list_recipes", "load_recipe", "merge"]
