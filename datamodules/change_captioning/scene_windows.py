"""The DataModule of the windows of two georeferenced scenes, for ``predict``."""

from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch.utils.data import DataLoader, Dataset

from lightning_plugins.checkpoints import CheckedLoading
from lightning_plugins.datamodules.change_captioning.image_pairs import collate
from lightning_plugins.datamodules.change_captioning.raster_bands import PERCENTILES
from lightning_plugins.datamodules.change_captioning.scene_pair import (
    Box,
    ScenePair,
    Shift,
    windows,
)

_SHIFTS = ("refuse", "mend", "ignore")


class ScenePairDataModule(CheckedLoading, LightningDataModule):
    """Windows of two georeferenced scenes, such as GeoTIFFs, for ``predict``.

    The scenes may have any size, bands and bit depth, different extents and pixel sizes, and
    different coordinate systems; see
    :class:`~lightning_plugins.datamodules.change_captioning.scene_pair.ScenePair`. Files are read
    window by window.

    Batches are dictionaries of ``images``, float32 ``(batch, 2, 3, window, window)`` in [0, 1],
    ``id`` (``row_column`` of the first pixel in the common grid), ``polygon`` (the closed ring of
    the window's corners in degrees of longitude and latitude, counter-clockwise) and
    ``valid_share`` (share of the pixels at which both scenes have values).
    :class:`~lightning_plugins.litmodels.change_captioning.SceneCaptionWriter` writes the captions
    as GeoJSON.

    Args:
        before: The first scene.
        after: The second scene.
        window: Side of a window in pixels of the first scene.
        overlap: Pixels that neighbouring windows share. A change that is at most ``overlap`` wide
            is inside of at least one window.
        bands: Numbers of the bands, from 1, for red, green and blue, or one for grey. None for the
            bands that the files mark, or the first three.
        percentiles: Percentiles of a band, over both scenes, that become 0 and 1.
        shift: ``refuse``, ``mend`` or ``ignore`` contents that are shifted by more than
            ``max_shift`` pixels.
        max_shift: Largest allowed shift in pixels.
        batch_size: Windows per batch.
        num_workers: Worker processes of the DataLoader.

    Raises:
        ValueError: An argument is outside its range; in ``setup``, the scenes are refused.
        ImportError: rasterio or pyproj is not installed.
    """

    def __init__(
        self,
        before: str,
        after: str,
        window: int = 256,
        overlap: int = 32,
        bands: list[int] | None = None,
        percentiles: tuple[float, float] = PERCENTILES,
        shift: Shift = "refuse",
        max_shift: float = 1.0,
        batch_size: int = 8,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= overlap < window:
            raise ValueError(f"overlap={overlap}: expected 0 to window - 1 = {window - 1}")
        if not 0 <= percentiles[0] < percentiles[1] <= 100:
            raise ValueError(f"percentiles={percentiles}: expected two rising numbers in [0, 100]")
        if shift not in _SHIFTS:
            raise ValueError(f"shift={shift!r}: expected one of {', '.join(map(repr, _SHIFTS))}")
        if batch_size < 1 or num_workers < 0 or max_shift < 0:
            raise ValueError(
                f"batch_size={batch_size}, num_workers={num_workers}, max_shift={max_shift}: "
                "expected at least 1, 0 and 0"
            )
        self.scenes = before, after
        self.window, self.overlap = window, overlap
        self.options: dict[str, Any] = {
            "bands": bands,
            "percentiles": (percentiles[0], percentiles[1]),
            "shift": shift,
            "max_shift": max_shift,
        }
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.windows: SceneWindows | None = None

    def setup(self, stage: str | None = None) -> None:
        """Check both scenes and find their common grid."""
        if self.windows is not None:
            return
        pair = ScenePair(*self.scenes, **self.options)
        self.windows = SceneWindows(
            pair, windows(pair.height, pair.width, self.window, self.overlap)
        )
        rank_zero_info(
            f"{len(self.windows)} windows of {self.window} pixels over {pair.height} x "
            f"{pair.width} pixels of {pair.crs}"
        )
        if pair.measured_shift is None and self.options["shift"] != "ignore":
            rank_zero_warn(
                "the shift between the scenes could not be measured: they have too little "
                "structure in common; check that they are registered"
            )

    def predict_dataloader(self) -> DataLoader:
        """Return the windows, row by row."""
        assert self.windows is not None, "call setup() first"
        return DataLoader(
            self.windows,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            collate_fn=collate,
        )


class SceneWindows(Dataset):
    """The windows of a scene pair as a map-style data set.

    Args:
        pair: The scenes.
        boxes: The windows.
    """

    def __init__(self, pair: ScenePair, boxes: list[Box]) -> None:
        self.pair = pair
        self.boxes = boxes
        self._corners = pair.corners(boxes)

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        box = self.boxes[index]
        images, valid_share = self.pair.read(box)
        return {
            "images": images,
            "id": f"{box[0]}_{box[1]}",
            "polygon": self._corners[index].tolist(),
            "valid_share": valid_share,
        }
