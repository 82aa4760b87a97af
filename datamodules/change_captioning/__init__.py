"""Pairs of images with captions of what changed between them."""

from lightning_plugins.datamodules.change_captioning.datamodule import ChangeCaptionDataModule

__all__ = ["ChangeCaptionDataModule"]
