"""LightningDataModules, one a task, each with an embedded default."""

from lightning_plugins.datamodules.resumable import ResumableDataLoader

__all__ = ["ResumableDataLoader"]
