"""Tokenized text in packed windows for language models."""

from lightning_plugins.datamodules.tokens.corpus import HubCorpus
from lightning_plugins.datamodules.tokens.datamodule import TokenDataModule

__all__ = ["HubCorpus", "TokenDataModule"]
