"""A callback that writes the captions of two scenes as GeoJSON and as a page."""

import json
import math
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_plugins.litmodels.change_captioning.caption_callbacks import log_folder
from lightning_plugins.metrics.captioning.caption_words import states_no_change
from lightning_plugins.reports.captioned_pairs import CaptionedPair, captions_page
from lightning_plugins.reports.writer import write_text_atomically

_THUMBNAIL = 128


class SceneCaptionWriter(BasePredictionWriter):
    """Writes the windows of a :class:`~lightning_plugins.datamodules.ScenePairDataModule`.

    - ``captions.geojson``: one feature per window with a value in both scenes. Its geometry is the
      window's polygon in degrees; its properties are ``id``, ``caption``, ``changed`` (whether the
      caption states a change, see
      :func:`~lightning_plugins.metrics.captioning.caption_words.states_no_change`),
      ``valid_share``, and the other entries of the prediction, such as ``score``.
    - ``scenes.html``: pictures of windows whose caption states a change, in the order of the scene.
      Requires matplotlib.

    Each process writes its own files: rank 1 writes ``captions_1.geojson``, and so on. The module's
    ``predict_step`` returns one dictionary with ``id`` and ``caption`` for each window, as that of
    ``ChangeCaptioner``.

    Args:
        folder: Folder of the files, created if it does not exist; None for the log folder.
        num_pictures: Largest number of windows on the page.

    Raises:
        ValueError: ``num_pictures`` is below 0.
        MisconfigurationException: Batches have no ``polygon``.
    """

    def __init__(self, folder: str | None = None, num_pictures: int = 200) -> None:
        super().__init__(write_interval="batch")
        if num_pictures < 0:
            raise ValueError(f"num_pictures={num_pictures}: expected at least 0")
        self.folder = folder
        self.num_pictures = num_pictures
        self._features: list[dict[str, Any]] = []
        self._pictures: list[CaptionedPair] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin new files."""
        self._features, self._pictures = [], []

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Keep the captions of a batch."""
        if "polygon" not in batch:
            raise MisconfigurationException(
                "SceneCaptionWriter requires batches with polygon: use ScenePairDataModule"
            )
        for place, record in enumerate(prediction):
            if not batch["valid_share"][place]:
                continue
            changed = not states_no_change(record["caption"])
            ring = [[round(x, 8), round(y, 8)] for x, y in batch["polygon"][place]]
            properties = {name: value for name, value in record.items() if _is_finite(value)} | {
                "changed": changed,
                "valid_share": round(batch["valid_share"][place], 4),
            }
            self._features.append(
                {
                    "type": "Feature",
                    "geometry": {"type": "Polygon", "coordinates": [ring]},
                    "properties": properties,
                }
            )
            if changed and len(self._pictures) < self.num_pictures:
                self._pictures.append(_thumbnails(record, ring, batch["images"][place]))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the files of this process."""
        suffix = f"_{trainer.global_rank}" if trainer.global_rank else ""
        folder = log_folder(trainer, self.folder)
        file = folder / f"captions{suffix}.geojson"
        lines = ",\n".join(json.dumps(feature, ensure_ascii=False) for feature in self._features)
        head = '{"type": "FeatureCollection", "features": [\n'
        write_text_atomically(file, f"{head}{lines}\n]}}\n")
        changed = sum(feature["properties"]["changed"] for feature in self._features)
        rank_zero_info(f"{len(self._features)} windows, {changed} with a change, in {file}")
        try:
            title = f"Changes in {changed} of {len(self._features)} windows"
            page = captions_page(title, self._pictures)
            write_text_atomically(folder / f"scenes{suffix}.html", page)
        except ImportError as error:
            rank_zero_warn(f"scenes.html was not written: {error}")


def _is_finite(value: Any) -> bool:
    """Whether JSON can contain a value; GeoJSON has no NaN."""
    return not isinstance(value, float) or math.isfinite(value)


def _thumbnails(record: dict[str, Any], ring: list[list[float]], images: Any) -> CaptionedPair:
    step = max(1, math.ceil(max(images.shape[-2:]) / _THUMBNAIL))
    # A copy, because a view would keep the images of the whole batch.
    small = images[..., ::step, ::step].permute(0, 2, 3, 1).float().cpu().numpy().copy()
    centre = [sum(corner[axis] for corner in ring[:4]) / 4 for axis in (0, 1)]
    note = f"centre at longitude {centre[0]:.6f}, latitude {centre[1]:.6f}"
    if isinstance(record.get("score"), float):
        note += f"; score {record['score']:.2f}"
    return CaptionedPair(record["id"], small[0], small[1], None, record["caption"], note=note)
