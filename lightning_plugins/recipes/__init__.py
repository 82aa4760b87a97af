"""Packaged YAML recipes: a base plus overlays of a few lines."""
