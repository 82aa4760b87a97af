"""Data for the detection of AI-generated text: human and AI texts with labels."""

from lightning_plugins.datamodules.ai_text.datamodule import AITextDataModule

__all__ = ["AITextDataModule"]
