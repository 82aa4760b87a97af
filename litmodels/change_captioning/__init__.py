"""Change captioning: what differs between two images of one place, in words."""

from lightning_plugins.litmodels.change_captioning.caption_pictures import CaptionPictures
from lightning_plugins.litmodels.change_captioning.caption_writer import CaptionWriter
from lightning_plugins.litmodels.change_captioning.captioner import ChangeCaptioner

__all__ = ["CaptionPictures", "CaptionWriter", "ChangeCaptioner"]
