"""Change captioning: descriptions of the difference between two images of one place."""

from lightning_plugins.litmodels.change_captioning.caption_callbacks import (
    CaptionPictures,
    CaptionWriter,
)
from lightning_plugins.litmodels.change_captioning.captioner import ChangeCaptioner
from lightning_plugins.litmodels.change_captioning.scene_writer import SceneCaptionWriter

__all__ = ["CaptionPictures", "CaptionWriter", "ChangeCaptioner", "SceneCaptionWriter"]
