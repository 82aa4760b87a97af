"""Whether two images show the same place, by their georeferences."""

from dataclasses import dataclass
from typing import Any

_PIXEL_SCALE, _TIE_POINT, _MATRIX, _GEO_KEYS = 33550, 33922, 34264, 34735  # tags of GeoTIFF
_GEOGRAPHIC, _PROJECTED, _USER_DEFINED = 2048, 3072, 32767  # two keys, and a value of them


@dataclass(frozen=True)
class Georeference:
    """Where an image is.

    Args:
        system: The coordinate system, comparable with ``==`` for files that are read alike.
        corner: Coordinates of the upper left corner.
        pixel: Width and height of a pixel; the height is negative if the image is upside down.
        turn: Change of the first coordinate from row to row, and of the second from column to
            column: 0, unless the image is rotated.
    """

    system: Any
    corner: tuple[float, float]
    pixel: tuple[float, float]
    turn: tuple[float, float] = (0.0, 0.0)


def of_tiff_tags(tags: Any) -> Georeference | None:
    """Return the georeference in the tags of a TIFF that Pillow has opened, or None."""
    scale, tie, matrix = tags.get(_PIXEL_SCALE), tags.get(_TIE_POINT), tags.get(_MATRIX)
    system = _system(tuple(tags.get(_GEO_KEYS, ())))
    if matrix and len(matrix) >= 8:
        a, b, _, c, d, e, _, f = map(float, matrix[:8])
        return Georeference(system, (c, f), (a, -e), (b, d)) if a * e != b * d else None
    if not scale or not tie or len(scale) < 2 or len(tie) < 5 or not all(scale[:2]):
        return None
    width, height = float(scale[0]), float(scale[1])
    corner = float(tie[3]) - float(tie[0]) * width, float(tie[4]) + float(tie[1]) * height
    return Georeference(system, corner, (width, height))


def _system(keys: tuple[Any, ...]) -> Any:
    """Return the code of a coordinate system if the keys contain one, else the keys.

    Other keys of the same system differ, such as where the file stores its name.
    """
    entries = zip(keys[::4], keys[1::4], keys[3::4], strict=False)
    values = {key: value for key, place, value in entries if place == 0}
    for key in (_PROJECTED, _GEOGRAPHIC):
        if key in values:
            return keys if values[key] == _USER_DEFINED else (key, values[key])
    return keys


def of_dataset(dataset: Any) -> Georeference | None:
    """Return the georeference of a file that rasterio has opened, or None."""
    grid = dataset.transform
    if not dataset.crs or grid.is_identity:
        return None
    return Georeference(dataset.crs, (grid.c, grid.f), (grid.a, -grid.e), (grid.b, grid.d))


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
    grids = [(*georeference.pixel, *georeference.turn) for georeference in (before, after)]
    largest = max(map(abs, grids[0]))
    if any(abs(a - b) > 1e-3 * largest for a, b in zip(*grids, strict=True)):
        raise ValueError(
            f"{pair}: the pixels are {before.pixel} and {after.pixel} units of the coordinate "
            f"system, rotated by {before.turn} and {after.turn} units; {remedy}"
        )
    a, height, b, d = grids[0]
    x, y = after.corner[0] - before.corner[0], after.corner[1] - before.corner[1]
    determinant = a * height + b * d
    # In pixels along the rows and, upwards, along the columns.
    shift = (x * height + b * y) / determinant, (a * y - d * x) / determinant
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
