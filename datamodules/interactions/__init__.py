"""User-item interactions as chronological sequences for recommenders."""

from lightning_plugins.datamodules.interactions.datamodule import InteractionDataModule

__all__ = ["InteractionDataModule"]
