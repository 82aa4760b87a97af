"""Points of manifolds, and functions on them."""

from lightning_plugins.datamodules.manifolds.datamodule import ManifoldDataModule

__all__ = ["ManifoldDataModule"]
