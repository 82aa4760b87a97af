"""Images of bounded size."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from lightning_plugins.inputs.limits import require

# Raster formats. Pillow decodes others, such as EPS, by starting another program.
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000")

if TYPE_CHECKING:
    from PIL.Image import Image


@contextmanager
def opened_image(file: str | Any | IO[bytes], what: object = None) -> Iterator["Image"]:
    """Open an image with Pillow, after a check of the size that its header states.

    The formats are PNG, JPEG, GIF, BMP, TIFF, WebP, PPM and JPEG 2000, whatever the file's name.

    Args:
        file: Path or binary file.
        what: Origin of the image, for the message; default: ``file``.

    Raises:
        LimitError: The image has too many pixels; none was decoded.
        OSError: The file is missing or is not an image.
    """
    import warnings

    from PIL import Image

    with warnings.catch_warnings():
        # Pillow warns and raises at limits of its own, which are wider than ours.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(file, formats=_FORMATS)
        except Image.DecompressionBombError as error:
            raise ValueError(f"{what or file}: {error}") from error
    with image:
        require("image_pixels", image.width * image.height, str(what or file))
        yield image
