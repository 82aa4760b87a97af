"""Bands of raster files as RGB in [0, 1]: choice of bands, missing values and stretch."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_plugins.datamodules.change_captioning.georeference import Georeference, of_dataset
from lightning_plugins.inputs.limits import require
from lightning_plugins.optional_packages import requires

PERCENTILES = (2.0, 98.0)
"""Percentiles of a band that become 0 and 1 by default."""
_STARTS = {
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "GTiff"),
    b"\x89PNG": "PNG",
    b"\0\0\0\x0cjP": "JP2OpenJPEG",
    b"EHFA_HEADER": "HFA",
}
"""First bytes -> driver of GDAL. Other formats, such as VRT, can name files and addresses."""


@dataclass(frozen=True)
class Raster:
    """Three bands of a raster file.

    Args:
        values: Float32 ``(3, height, width)`` in the units of the file.
        valid: Boolean ``(height, width)``; False where a value is missing.
        dtype: Type of the file's values, such as ``uint16``.
        bands: Numbers of the bands in the file, from 1.
        is_marked: Whether the file marks its red, green and blue bands.
        georeference: Where the raster is, or None.
    """

    values: NDArray[np.float32]
    valid: NDArray[np.bool_]
    dtype: str
    bands: tuple[int, ...] = (1, 2, 3)
    is_marked: bool = True
    georeference: Georeference | None = None


def raster_driver(file: Path) -> str | None:
    """Return the driver of GDAL for a file by its first bytes; None for other formats."""
    with file.open("rb") as stream:
        head = stream.read(16)
    return next((driver for start, driver in _STARTS.items() if head.startswith(start)), None)


def open_raster(file: Path) -> Any:
    """Open a local raster file for reading.

    Raises:
        ValueError: The file is missing, or is not a raster file.
        ImportError: rasterio is not installed.
    """
    with requires("rasterio", by=f"reading {file.name} (more than 8 bits, or bands)", extra="geo"):
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
    if not file.is_file():  # also keeps GDAL from opening addresses and archives
        raise ValueError(f"{file} is missing")
    if (driver := raster_driver(file)) is None:
        raise ValueError(f"{file} is not a readable image: expected TIFF, PNG, JPEG 2000 or IMG")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            return rasterio.open(file.absolute(), driver=driver)
        except RasterioIOError as error:
            raise ValueError(f"{file} is not a readable image: {error}") from error


def read_raster(file: Path, bands: Sequence[int] | None = None) -> Raster:
    """Read three bands of a file.

    Args:
        file: The file, for example a GeoTIFF.
        bands: See :func:`rgb_bands`.

    Raises:
        LimitError: The file has too many pixels.
        ValueError: The file is missing or broken, or a band does not exist.
        ImportError: rasterio is not installed.
    """
    with open_raster(file) as dataset:
        require("image_pixels", dataset.width * dataset.height, str(file))
        raster = read_bands(dataset, rgb_bands(dataset, bands))
        return replace(raster, georeference=of_dataset(dataset))


def rgb_bands(dataset: Any, bands: Sequence[int] | None = None) -> tuple[int, int, int]:
    """Return the numbers, from 1, of the bands that become red, green and blue.

    Args:
        dataset: An open file.
        bands: Three numbers, or one for grey. None for the bands that the file marks as red, green
            and blue; for a file without such marks the first three; for one or two bands the first.

    Raises:
        ValueError: There is no such band, or not one or three numbers; or the values of the file
            are indices of a palette, or have less than 8 bits.
    """
    bits = dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", "8")
    if dataset.colorinterp[0].name == "palette" or int(bits) < 8:
        raise ValueError(
            f"{dataset.name} has a palette, or values of less than 8 bits: convert it to bands of "
            "8 bits first (gdal_translate -expand rgb, or -scale)"
        )
    if bands is None:
        if marked := _marked_bands(dataset):
            bands = marked
        else:
            bands = (1, 2, 3) if dataset.count >= 3 else (1,)
    if len(bands) not in (1, 3) or not all(1 <= band <= dataset.count for band in bands):
        raise ValueError(
            f"bands={list(bands)}: expected one or three numbers from 1 to {dataset.count}, the "
            f"bands of {dataset.name}"
        )
    red, green, blue = tuple(bands) * (3 // len(bands))
    return red, green, blue


def _marked_bands(dataset: Any) -> list[int]:
    marks = [mark.name for mark in dataset.colorinterp]
    names = ("red", "green", "blue")
    return [marks.index(name) + 1 for name in names] if set(names) <= set(marks) else []


def read_bands(dataset: Any, bands: Sequence[int], **options: Any) -> Raster:
    """Read bands of an open file; ``options`` are those of rasterio's ``read``.

    A pixel is missing if one of its values is; with 8 bits, where 0 or 255 is also a usual value of
    one band, if all are.

    Raises:
        ValueError: The file is broken, or contains complex numbers.
    """
    from rasterio.errors import RasterioIOError

    try:
        found = dataset.read(list(bands), masked=True, **options)
    except RasterioIOError as error:
        raise ValueError(f"{dataset.name} cannot be read: {error}") from error
    if np.iscomplexobj(found):
        raise ValueError(
            f"{dataset.name} contains complex numbers: expected an image, such as their magnitude"
        )
    values = found.data.astype(np.float32)
    mask = np.ma.getmaskarray(found)
    valid = ~(mask.all(0) if found.dtype == np.uint8 else mask.any(0)) & np.isfinite(values).all(0)
    return Raster(
        np.nan_to_num(values * valid, posinf=0, neginf=0),
        valid,
        dataset.dtypes[bands[0] - 1],
        tuple(bands),
        bool(_marked_bands(dataset)),
    )


def stretch_limits(
    rasters: Sequence[Raster], percentiles: tuple[float, float] = PERCENTILES
) -> NDArray[np.float32]:
    """Return the values of each band that become 0 and 1, ``(2, 3)``, the same for all rasters.

    They are percentiles over the valid pixels of all rasters; of 8 bits they are 0 and 255.

    Raises:
        ValueError: The rasters have values of different types, such as uint8 and uint16; or some
            are grey and others are not; or only some files mark their red, green and blue bands,
            and these are not the first three.
    """
    dtypes = {raster.dtype for raster in rasters}
    if len(dtypes) > 1:
        raise ValueError(
            f"the images have values of the types {' and '.join(sorted(dtypes))}: expected the "
            "same type and units in both; convert one of them"
        )
    is_grey = {len(set(raster.bands)) == 1 for raster in rasters}
    is_marked = {raster.is_marked for raster in rasters}
    if len({raster.bands for raster in rasters}) > 1 and len(is_grey) + len(is_marked) > 2:
        found = " and ".join(sorted({str(raster.bands) for raster in rasters}))
        raise ValueError(
            f"the bands {found} of the two images would be compared, and the files do not state "
            "that they have the same colours: choose them with bands, or mark them in both files"
        )
    if dtypes == {"uint8"}:
        return np.array([[0.0] * 3, [255.0] * 3], np.float32)
    pixels = np.concatenate([raster.values[:, raster.valid] for raster in rasters], axis=1)
    if not pixels.shape[1]:
        return np.array([[0.0] * 3, [1.0] * 3], np.float32)
    return np.percentile(pixels, percentiles, axis=1).astype(np.float32)


def stretched(raster: Raster, limits: NDArray[np.float32]) -> Tensor:
    """Return float32 ``(3, height, width)`` in [0, 1]; missing values become 0."""
    low, high = limits[:, :, None, None]
    scaled = np.clip((raster.values - low) / np.maximum(high - low, 1e-12), 0, 1)
    return torch.from_numpy(np.where(raster.valid, scaled, 0).astype(np.float32))


def stretched_pair(before: Raster, after: Raster) -> tuple[Tensor, Tensor]:
    """Stretch two images with the limits of both, so that their brightness stays comparable."""
    limits = stretch_limits([before, after])
    return stretched(before, limits), stretched(after, limits)
