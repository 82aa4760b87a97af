"""Packaged YAML recipes: a base plus overlays of a few lines.

The name of a recipe is its path without ``.yaml``: ``image/digits``. An overlay changes any recipe:
``image/digits+late_sam``. A file can start from such a combination, with the line
``recipe: image/digits+late_sam``, and change more; its own keys take precedence.
"""

from lightning_plugins.recipes.loading import Recipe, list_recipes, load_recipe, merge

__all__ = ["Recipe", "list_recipes", "load_recipe", "merge"]
