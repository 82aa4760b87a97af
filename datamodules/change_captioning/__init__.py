"""Change captioning: image pairs with captions, and windows of two scenes."""

from lightning_plugins.datamodules.change_captioning.datamodule import ChangeCaptionDataModule
from lightning_plugins.datamodules.change_captioning.scene_windows import ScenePairDataModule

__all__ = ["ChangeCaptionDataModule", "ScenePairDataModule"]
