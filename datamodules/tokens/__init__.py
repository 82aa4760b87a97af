"""Packed tokens of text for language models."""

from lightning_plugins.datamodules.tokens.datamodule import TokenDataModule
from lightning_plugins.datamodules.tokens.hub_corpus import HubCorpus

__all__ = ["HubCorpus", "TokenDataModule"]
