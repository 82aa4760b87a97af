"""Data for change captioning: pairs of images with captions of the change between them."""

from lightning_plugins.datamodules.change_captioning.datamodule import ChangeCaptionDataModule

__all__ = ["ChangeCaptionDataModule"]
