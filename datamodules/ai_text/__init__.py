"""Texts of people and of machines."""

from lightning_plugins.datamodules.ai_text.datamodule import AITextDataModule

__all__ = ["AITextDataModule"]
