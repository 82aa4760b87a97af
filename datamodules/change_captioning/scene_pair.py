"""Two georeferenced scenes of one place on a common grid, read window by window."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import escape

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_plugins.datamodules.change_captioning.raster_bands import (
    PERCENTILES,
    Raster,
    open_raster,
    read_bands,
    rgb_bands,
    stretch_limits,
    stretched,
)
from lightning_plugins.optional_packages import requires

Shift = Literal["refuse", "mend", "ignore"]
Box = tuple[int, int, int, int]
"""First row, first column, height and width of a window, in pixels of the common grid."""
_SAMPLES_PER_SIDE = 6
_SAMPLE_SIDE = 256


class ScenePair:
    """Two scenes on the grid of the first, over the area that both cover.

    The second scene is resampled (bilinear; the mean, if its pixels are smaller than half of the
    first's) unless its pixels are those of the first. Both are stretched with the same limits,
    computed from 36 samples of 256 pixels. Memory does not depend on the size of the scenes.

    The shift of the contents is measured by phase correlation of the samples. It exists if the
    georeference of one scene is wrong; different extents or origins are no shift.

    Args:
        before: The first scene, for example a GeoTIFF, with a coordinate system.
        after: The second scene, of the same type of values.
        bands: See :func:`~lightning_plugins.datamodules.change_captioning.raster_bands.rgb_bands`;
            for both scenes.
        percentiles: Percentiles of each band that become 0 and 1; scenes of 8 bits are not
            stretched.
        shift: What to do if the contents are shifted by more than ``max_shift``: ``refuse``,
            ``mend`` (move the second scene) or ``ignore``.
        max_shift: Largest allowed shift in pixels of the first scene.

    Raises:
        ValueError: A file is missing or has no coordinate system; the scenes do not overlap, have
            different types of values, or are shifted.
        ImportError: rasterio is not installed.
    """

    def __init__(
        self,
        before: str | Path,
        after: str | Path,
        bands: Sequence[int] | None = None,
        percentiles: tuple[float, float] = PERCENTILES,
        shift: Shift = "refuse",
        max_shift: float = 1.0,
    ) -> None:
        self.before, self.after = Path(before), Path(after)
        self.bands = bands
        self.measured_shift: tuple[float, float] | None = None
        """Rows and columns by which the second scene's contents are displaced; None if the samples
        have too little structure, or do not agree."""
        self._moved = (0.0, 0.0)
        # First, second on the grid, the second's mask on the grid or None, and what these read.
        self._opened: dict[int, tuple[Any, ...]] = {}
        with open_raster(self.before) as first, open_raster(self.after) as second:
            self._find_grid(first, second)
        samples = [self._rasters(box) for box in self._sample_boxes()]
        self._limits = stretch_limits([r for pair in samples for r in pair], percentiles)
        if shift == "ignore":
            return
        self.measured_shift = _agreed_shift(samples)
        if self.measured_shift is None or max(map(abs, self.measured_shift)) <= max_shift:
            return
        rows, columns = self.measured_shift
        if shift == "refuse":
            raise ValueError(
                f"the contents of {self.after.name} are shifted against {self.before.name} by "
                f"{rows:+.1f} rows and {columns:+.1f} columns, more than max_shift={max_shift} "
                "pixels: the georeference of one of them is wrong; shift='mend' moves the second "
                "scene, shift='ignore' uses it as it is"
            )
        self.close()
        self._moved = self.measured_shift

    def read(self, box: Box) -> tuple[Tensor, float]:
        """Read a window of both scenes.

        Returns:
            Images, float32 ``(2, 3, height, width)`` in [0, 1], which are black where one of the
            scenes has no value; and the share of pixels at which both have values.
        """
        first, second = self._rasters(box)
        valid = first.valid & second.valid
        pair = [stretched(replace(r, valid=valid), self._limits) for r in (first, second)]
        return torch.stack(pair), float(valid.mean())

    def corners(self, boxes: Sequence[Box]) -> NDArray[np.float64]:
        """Return the corners of windows in degrees, ``(windows, 5, 2)``: longitude, latitude.

        The order is counter-clockwise and closed, as in GeoJSON.
        """
        with requires("pyproj", by="ScenePair", extra="geo"):
            from pyproj import Transformer
        box = np.array(boxes, float).reshape(-1, 4)
        top, left = box[:, 0], box[:, 1]
        bottom, right = top + box[:, 2], left + box[:, 3]
        columns = np.stack([left, left, right, right, left], 1)
        rows = np.stack([top, bottom, bottom, top, top], 1)
        grid = self.transform
        x, y = grid.c + grid.a * columns, grid.f + grid.e * rows
        to_degrees = Transformer.from_crs(self.crs, "EPSG:4326", always_xy=True)
        return np.stack(to_degrees.transform(x, y), -1)

    def close(self) -> None:
        """Close the files of this process."""
        for scene in filter(None, self._opened.pop(os.getpid(), ())):
            scene.close()

    def _find_grid(self, first: Any, second: Any) -> None:
        for scene in (first, second):
            if not scene.crs:
                raise ValueError(
                    f"{scene.name} has no coordinate system: georeference it, or caption it as a "
                    "plain image with before and after of ChangeCaptionDataModule"
                )
            if scene.transform.is_identity:
                raise ValueError(
                    f"{scene.name} has a coordinate system but no position in it: georeference it"
                )
            rgb_bands(scene, self.bands)
        grid = first.transform
        if grid.b or grid.d or grid.a <= 0 or grid.e >= 0:
            raise ValueError(
                f"{first.name} is rotated or mirrored against its coordinate system: warp it to a "
                "north-up grid first (gdalwarp)"
            )
        bounds = _bounds_in(second, first.crs)
        left, right = _inner(bounds[0], bounds[2], grid.c, grid.a, first.width)
        top, bottom = _inner(bounds[3], bounds[1], grid.f, grid.e, first.height)
        if right <= left or bottom <= top:
            raise ValueError(
                f"{self.before.name} and {self.after.name} do not overlap: they cover "
                f"{_extent(first.bounds)} and {_extent(bounds)} in {first.crs}"
            )
        self.crs = first.crs
        self.height, self.width = bottom - top, right - left
        self._offset = top, left
        self.transform = _translated(grid, left, top)

    def _sample_boxes(self) -> list[Box]:
        rows = _starts(self.height, _SAMPLE_SIDE, _SAMPLES_PER_SIDE)
        columns = _starts(self.width, _SAMPLE_SIDE, _SAMPLES_PER_SIDE)
        height, width = min(self.height, _SAMPLE_SIDE), min(self.width, _SAMPLE_SIDE)
        return [(row, column, height, width) for row in rows for column in columns]

    def _rasters(self, box: Box) -> tuple[Raster, Raster]:
        first, second, mask = self._files()
        row, column, height, width = box
        own = (row + self._offset[0], column + self._offset[1], height, width)
        with requires("rasterio", by="ScenePair", extra="geo"):
            from rasterio import Env
        with Env(GDAL_CACHEMAX=64 << 20):
            rasters = (
                read_bands(first, rgb_bands(first, self.bands), window=_window(own)),
                read_bands(second, rgb_bands(second, self.bands), window=_window(box)),
            )
            if mask is not None:
                rasters[1].valid[mask.read(1, window=_window(box)) < 255] = False
        return rasters

    def _files(self) -> tuple[Any, ...]:
        """Return the open scenes of this process; worker processes must not share them."""
        if os.getpid() not in self._opened:
            first, second = open_raster(self.before), open_raster(self.after)
            mask = _mask_of(second)
            grids = self._on_grid(second), None if mask is None else self._on_grid(mask)
            self._opened[os.getpid()] = first, *grids, second, mask
        return self._opened[os.getpid()][:3]

    def _on_grid(self, second: Any) -> Any:
        from rasterio.enums import ColorInterp, Resampling
        from rasterio.vrt import WarpedVRT

        bounds = _bounds_in(second, self.crs)
        pixel = (bounds[2] - bounds[0]) / second.width
        is_much_finer = pixel < 0.5 * self.transform.a
        has_mask = second.nodata is not None or ColorInterp.alpha in second.colorinterp
        rows, columns = self._moved
        return WarpedVRT(
            second,
            crs=self.crs,
            transform=_translated(self.transform, columns, rows),
            width=self.width,
            height=self.height,
            resampling=Resampling.average if is_much_finer else Resampling.bilinear,
            add_alpha=not has_mask,
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": {}}


def _bounds_in(scene: Any, crs: Any) -> tuple[float, float, float, float]:
    """Return the left, bottom, right and top of a scene, which may be rotated or upside down."""
    from rasterio.warp import transform_bounds

    left, bottom, right, top = scene.bounds
    bounds = min(left, right), min(bottom, top), max(left, right), max(bottom, top)
    return bounds if scene.crs == crs else transform_bounds(scene.crs, crs, *bounds)


def _mask_of(scene: Any) -> Any:
    """Return the mask of a file that stores one beside its bands, as a raster, or None.

    A resampled view of the file would ignore it.
    """
    import rasterio
    from rasterio.enums import MaskFlags

    flags = scene.mask_flag_enums[0]
    if MaskFlags.per_dataset not in flags or MaskFlags.alpha in flags:
        return None
    return rasterio.open(
        f'<VRTDataset rasterXSize="{scene.width}" rasterYSize="{scene.height}">'
        f"<SRS>{escape(scene.crs.to_wkt())}</SRS>"
        f"<GeoTransform>{', '.join(map(repr, scene.transform.to_gdal()))}</GeoTransform>"
        '<VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>{escape(scene.name)}</SourceFilename><SourceBand>mask,1</SourceBand>"
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )


def _translated(grid: Any, columns: float, rows: float) -> Any:
    """Return a north-up grid that begins some pixels later."""
    from rasterio import Affine

    return Affine(grid.a, 0.0, grid.c + grid.a * columns, 0.0, grid.e, grid.f + grid.e * rows)


def windows(height: int, width: int, side: int, overlap: int) -> list[Box]:
    """Return windows that cover an area; the last of a row or column is moved back to its edge."""
    boxes = []
    for row in _covering(height, side, overlap):
        for column in _covering(width, side, overlap):
            boxes.append((row, column, min(side, height), min(side, width)))
    return boxes


def _covering(length: int, side: int, overlap: int) -> list[int]:
    last = max(0, length - side)
    return [*range(0, last, side - overlap), last]


def _starts(length: int, side: int, count: int) -> list[int]:
    last = max(0, length - side)
    return sorted({round(last * place / (count - 1)) for place in range(count)})


def _window(box: Box) -> Any:
    from rasterio.windows import Window

    row, column, height, width = box
    return Window(column, row, width, height)


def _inner(start: float, end: float, origin: float, step: float, count: int) -> tuple[int, int]:
    """Return the first and the end pixel of a grid that are inside of an interval."""
    first = int(np.ceil((start - origin) / step - 1e-6))
    stop = int(np.floor((end - origin) / step + 1e-6))
    return max(0, first), min(count, stop)


def _extent(bounds: Any) -> str:
    left, bottom, right, top = (f"{value:.6g}" for value in bounds)
    return f"x {left} to {right}, y {bottom} to {top}"


def _agreed_shift(samples: Sequence[tuple[Raster, Raster]]) -> tuple[float, float] | None:
    """Return the median shift of the samples if more than half of them agree within a pixel."""
    found = [shift for pair in samples if (shift := _measured_shift(*pair)) is not None]
    if not found:
        return None
    median = np.median(found, axis=0)
    agreeing = np.abs(np.array(found) - median).max(1) <= 1
    if agreeing.mean() <= 0.5:
        return None
    rows, columns = np.mean(np.array(found)[agreeing], axis=0)
    return float(rows), float(columns)


def _measured_shift(before: Raster, after: Raster) -> tuple[float, float] | None:
    """Return the shift of a sample's edges by phase correlation, or None without a clear peak."""
    valid = before.valid & after.valid
    if min(valid.shape) < 16 or valid.mean() < 0.9:
        return None
    spectra = []
    for raster in (before, after):
        grey = np.where(valid, raster.values.mean(0), 0)
        edges = np.hypot(*np.gradient(grey))
        if not edges.std() > 0:
            return None
        edges = (edges - edges.mean()) * np.outer(*map(np.hanning, edges.shape))
        spectra.append(np.fft.rfft2(edges))
    product = spectra[1] * spectra[0].conj()
    peaks = np.fft.irfft2(product / np.maximum(np.abs(product), 1e-12), s=valid.shape)
    place = np.unravel_index(int(peaks.argmax()), peaks.shape)
    if peaks[place] < 8 / np.sqrt(peaks.size):  # the largest of as many random values is about 4.5
        return None
    return (
        _signed(place[0], peaks[:, place[1]]),
        _signed(place[1], peaks[place[0]]),
    )


def _signed(place: Any, line: NDArray[np.float64]) -> float:
    """Return the position of a peak between pixels, as a shift of at most half the length."""
    size = len(line)
    left, centre, right = line[place - 1], line[place], line[(place + 1) % size]
    curvature = left - 2 * centre + right
    between = 0.5 * (left - right) / curvature if curvature else 0.0
    return float((place + size // 2) % size - size // 2 + between)
