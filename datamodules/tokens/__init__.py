"""Tokenized text in packed windows for language models."""

from lightning_plugins.datamodules.tokens.corpus import HubCorpus
from lightning_plugins.datamodules.tokens.datamodule import TokenDataModule
from lightning_plugins.datamodules.tokens.mixture import BinCorpus, CorpusShare

__all__ = ["BinCorpus", "CorpusShare", "HubCorpus", "TokenDataModule"]
