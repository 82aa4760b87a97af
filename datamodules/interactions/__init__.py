"""Who took which item when, as sequences for recommenders."""

from lightning_plugins.datamodules.interactions.datamodule import InteractionDataModule

__all__ = ["InteractionDataModule"]
