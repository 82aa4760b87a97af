"""LightningDataModules, one a task, each with an embedded default."""

from lightning_plugins.datamodules.digits import DigitsDataModule
from lightning_plugins.datamodules.image import ImageDataModule
from lightning_plugins.datamodules.partition import DirichletPartition
from lightning_plugins.datamodules.resumable import ResumableDataLoader
from lightning_plugins.datamodules.tokens import TokenDataModule

__all__ = [
    "DigitsDataModule",
    "DirichletPartition",
    "ImageDataModule",
    "ResumableDataLoader",
    "TokenDataModule",
]
