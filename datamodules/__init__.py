"""LightningDataModules, one a task, each with an embedded default."""

from lightning_plugins.datamodules.ai_text import AITextDataModule
from lightning_plugins.datamodules.change_captioning import ChangeCaptionDataModule
from lightning_plugins.datamodules.digits import DigitsDataModule
from lightning_plugins.datamodules.image import ImageDataModule
from lightning_plugins.datamodules.induction import (
    InductionMixtureDataModule,
    MarkovChainDataModule,
    RepeatedSequenceDataModule,
)
from lightning_plugins.datamodules.interactions import InteractionDataModule
from lightning_plugins.datamodules.manifolds import ManifoldDataModule
from lightning_plugins.datamodules.partition import DirichletPartition
from lightning_plugins.datamodules.resumable import ResumableDataLoader
from lightning_plugins.datamodules.tokens import HubCorpus, TokenDataModule

__all__ = [
    "AITextDataModule",
    "ChangeCaptionDataModule",
    "DigitsDataModule",
    "DirichletPartition",
    "HubCorpus",
    "ImageDataModule",
    "InductionMixtureDataModule",
    "InteractionDataModule",
    "ManifoldDataModule",
    "MarkovChainDataModule",
    "RepeatedSequenceDataModule",
    "ResumableDataLoader",
    "TokenDataModule",
]
