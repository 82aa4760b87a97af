"""Whether two images show the same place, by their georeferences."""

from dataclasses import dataclass
from typing import Any

_PIXEL_SCALE, _TIE_POINT, _GEO_KEYS = 33550, 33922, 34735  # tags of GeoTIFF


@dataclass(frozen=True)
class Georeference:
    """Where an image is.

    Args:
        system: The coordinate system, comparable with ``==`` for files that are read alike.
        corner: Coordinates of the upper left corner.
        pixel: Width and height of a pixel.
    """

    system: Any
    corner: tuple[float, float]
    pixel: tuple[float, float]


def of_tiff_tags(tags: Any) -> Georeference | None:
    """Return the georeference in the tags of a TIFF that Pillow has opened, or None."""
    scale, tie = tags.get(_PIXEL_SCALE), tags.get(_TIE_POINT)
    if not scale or not tie or len(scale) < 2 or len(tie) < 5 or not all(scale[:2]):
        return None
    width, height = float(scale[0]), float(scale[1])
    corner = float(tie[3]) - float(tie[0]) * width, float(tie[4]) + float(tie[1]) * height
    return Georeference(tuple(tags.get(_GEO_KEYS, ())), corner, (width, height))


def of_dataset(dataset: Any) -> Georeference | None:
    """Return the georeference of a file that rasterio has opened, or None."""
    grid = dataset.transform
    if not dataset.crs or grid.is_identity:
        return None
    return Georeference(dataset.crs.to_wkt(), (grid.c, grid.f), (grid.a, -grid.e))


def check_same_place(
    before: Georeference | None, after: Georeference | None, size: tuple[int, int], pair: str
) -> None:
    """Check that two images of ``size`` (width, height) have the same place, to a pixel.

    Images without a georeference are not checked.

    Raises:
        ValueError: The images have other coordinate systems or pixel sizes, or are shifted by more
            than one pixel.
    """
    if before is None or after is None:
        return
    remedy = "ScenePairDataModule captions the area that both cover, on a common grid"
    if before.system != after.system:
        raise ValueError(f"{pair}: the images have different coordinate systems; {remedy}")
    if any(abs(a / b - 1) > 1e-3 for a, b in zip(before.pixel, after.pixel, strict=True)):
        raise ValueError(
            f"{pair}: the pixels are {before.pixel} and {after.pixel} units of the coordinate "
            f"system; {remedy}"
        )
    shift = [(after.corner[axis] - before.corner[axis]) / before.pixel[axis] for axis in (0, 1)]
    if any(abs(pixels) >= length for pixels, length in zip(shift, size, strict=True)):
        raise ValueError(
            f"{pair}: by their georeferences the images do not overlap; expected two images of one "
            "place"
        )
    if max(map(abs, shift)) > 1:
        raise ValueError(
            f"{pair}: by their georeferences the images are shifted by {shift[0]:+.1f} pixels to "
            f"the east and {shift[1]:+.1f} to the north; {remedy}"
        )
