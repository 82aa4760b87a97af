"""The map-style data set of image pairs, with joint augmentation of both images."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset

from lightning_plugins.datamodules.change_captioning.caption_files import PairRecord
from lightning_plugins.datamodules.change_captioning.georeference import (
    Georeference,
    check_same_place,
    of_tiff_tags,
)
from lightning_plugins.datamodules.change_captioning.raster_bands import (
    raster_driver,
    read_raster,
    stretched_pair,
)
from lightning_plugins.datamodules.file_error_context import file_error_context
from lightning_plugins.inputs import opened_image
from lightning_plugins.optional_packages import requires

CaptionMode = Literal["flatten", "random", "first"]
_BITS_PER_SAMPLE, _NO_DATA = 258, 42113  # tags of TIFF and GeoTIFF


class ImagePairs(Dataset):
    """A data set of ``{"images", "id", "caption", "references", "changed"}`` per sample.

    Args:
        records: The pairs.
        caption_mode: ``flatten`` makes each caption of each pair a sample; ``random`` draws a
            caption from torch's global generator each time a pair is read; ``first`` always takes
            the first caption.
        augment: Rotate and mirror both images of a pair in the same way, one of eight at random
            each time. Only for captions that name no directions.
        cache: Where decoded images are kept; None reads the files each time.
    """

    def __init__(
        self,
        records: Sequence[PairRecord],
        caption_mode: CaptionMode = "first",
        augment: bool = False,
        cache: "PairCache | None" = None,
    ) -> None:
        self.cache = cache
        self.records = records
        self.caption_mode = caption_mode
        self.augment = augment
        self._samples = [
            (pair, caption)
            for pair, record in enumerate(records)
            for caption in range(len(record.captions) if caption_mode == "flatten" else 1)
        ]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        pair, number = self._samples[index]
        record = self.records[pair]
        if self.caption_mode == "random":
            number = int(torch.randint(len(record.captions), ()))
        images = self._images(record)
        if self.augment:
            images = _turned(images, int(torch.randint(8, ())))
        sample: dict[str, Any] = {"images": images, "id": record.id}
        if record.captions:
            sample |= {"caption": record.captions[number], "references": list(record.captions)}
        if record.changed is not None:
            sample["changed"] = record.changed
        return sample

    def _images(self, record: PairRecord) -> Tensor:
        if self.cache is None:
            return read_pair(record)
        key = record.before, record.after
        return self.cache.get(key, lambda: read_pair(record), len(self.records))


class PairCache:
    """Decoded images of data sets that fit into a number of bytes; others are not kept.

    A training on small images would otherwise spend much of its time on decoding.

    Args:
        max_bytes: Limit.
    """

    def __init__(self, max_bytes: int = 256 << 20) -> None:
        self._images: dict[object, Tensor] = {}
        self._max = self._free = max_bytes

    def get(self, key: object, read: Callable[[], Tensor], count: int) -> Tensor:
        """Return the images of ``key``, from memory or from ``read``. Do not write to them.

        Args:
            key: Name of the pair.
            read: Reads the pair.
            count: Number of pairs of the data set.
        """
        if (images := self._images.get(key)) is None:
            images = read()
            size = images.numel() * images.element_size()
            if size * count <= self._max and size <= self._free:
                self._free -= size
                self._images[key] = images
        return images


def read_pair(record: PairRecord) -> Tensor:
    """Read both images as float32 ``(2, 3, height, width)`` in [0, 1].

    Values of 8 bits are divided by 255. Images of CMYK, of one bit or with a palette are converted
    to RGB. Pixels are black if they are fully transparent, or if a GeoTIFF marks their value as
    missing. If one of the images has more bits, or bands that Pillow cannot read, both are read
    with :func:`~lightning_plugins.datamodules.change_captioning.raster_bands.read_raster` and
    stretched together.

    Georeferenced images (GeoTIFF) have to show the same place.

    Raises:
        ValueError: A file is missing, broken or too large; the sizes differ, or the georeferences
            by more than one pixel.
        ImportError: Such images are read, and rasterio is not installed.
    """
    pictures = [_picture(file) for file in (record.before, record.after)]
    if None in pictures:
        rasters = read_raster(record.before), read_raster(record.after)
        with file_error_context(record.after):
            before, after = stretched_pair(*rasters)
        places = [raster.georeference for raster in rasters]
    else:
        (before, first), (after, second) = cast("list[_Picture]", pictures)
        places = [first, second]
    if before.shape != after.shape:
        raise ValueError(
            f"pair {record.id!r}: {record.before} has {before.shape[2]}x{before.shape[1]} pixels, "
            f"{record.after} has {after.shape[2]}x{after.shape[1]}; expected equal sizes "
            "(skip_bad=True drops such pairs)"
        )
    check_same_place(places[0], places[1], (before.shape[2], before.shape[1]), f"pair {record.id}")
    return torch.stack([before, after])


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize images ``(..., 3, height, width)`` in [0, 1], bicubic and with antialiasing."""
    if tuple(images.shape[-2:]) == size:
        return images
    flat = interpolate(images.flatten(0, -4), size, mode="bicubic", antialias=True)
    return flat.clamp(0, 1).unflatten(0, images.shape[:-3])


class _Picture(NamedTuple):
    pixels: Tensor
    georeference: Georeference | None


def _picture(file: Any) -> _Picture | None:
    """Return an 8-bit image, or None if it is left to rasterio."""
    with requires("Pillow", by="reading images", extra="vision"):
        from PIL import UnidentifiedImageError
    try:
        with opened_image(file) as picture:
            if _is_deep(picture):
                if picture.format == "PNG":
                    picture.load()  # GDAL reads a PNG that ends too early without an error
                return None
            pixels = _without_missing(picture)
            place = of_tiff_tags(getattr(picture, "tag_v2", {}))
    except FileNotFoundError:
        raise ValueError(f"{file} is missing") from None
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        if raster_driver(Path(file)) == "GTiff":
            return None
        raise ValueError(f"{file} is not a readable image: {error}") from error
    return _Picture(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255, place)


def _without_missing(picture: Any) -> NDArray[np.uint8]:
    """Return an image as RGB, ``(height, width, 3)``, with 0 where a value is missing."""
    pixels = np.array(picture.convert("RGB"))
    if picture.has_transparency_data:
        pixels[np.array(picture.convert("RGBA"))[..., 3] == 0] = 0
    with suppress(ValueError):  # a text that states no number
        missing = float(getattr(picture, "tag_v2", {}).get(_NO_DATA, "nan").strip("\0 "))
        if picture.mode != "P":  # the value is a colour, not an index of one
            pixels[(pixels == missing).all(-1)] = 0
    return pixels


def _is_deep(picture: Any) -> bool:
    """Whether the values have more than 8 bits, of which Pillow would drop some."""
    bits = getattr(picture, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))
    of_png = any(";16" in str(tile[3]) for tile in picture.tile)
    return picture.mode.startswith(("I", "F")) or max(bits) > 8 or of_png


def collate(samples: list[dict[str, Any]], side: int | None = None) -> dict[str, Any]:
    """Return a batch: images ``(batch, 2, 3, height, width)``, and lists of all other fields.

    Pairs of different sizes are resized. A field that some samples lack is None for them.

    Args:
        samples: Samples of :class:`ImagePairs`.
        side: Height and width to which they are resized; None for the largest of the batch.
    """
    sizes = {tuple(sample["images"].shape[-2:]) for sample in samples}
    size = max(height for height, _ in sizes), max(width for _, width in sizes)
    if len(sizes) > 1 and side is not None:
        size = side, side
    images = torch.stack([resized(sample["images"], size) for sample in samples])
    names = dict.fromkeys(name for sample in samples for name in sample if name != "images")
    batch: dict[str, Any] = {name: [sample.get(name) for sample in samples] for name in names}
    return batch | {"images": images}


def _turned(images: Tensor, way: int) -> Tensor:
    images = images.rot90(way % 4, (-2, -1))
    return images.flip(-1) if way >= 4 else images
