"""Change captioning: what differs between two images of one place, in words."""

from lightning_plugins.litmodels.change_captioning.caption_callbacks import (
    CaptionPictures,
    CaptionWriter,
)
from lightning_plugins.litmodels.change_captioning.captioner import ChangeCaptioner

__all__ = ["CaptionPictures", "CaptionWriter", "ChangeCaptioner"]
