"""Points on manifolds, and functions of them."""

from lightning_plugins.datamodules.manifolds.datamodule import ManifoldDataModule

__all__ = ["ManifoldDataModule"]
