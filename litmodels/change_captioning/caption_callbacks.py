"""Callbacks that write captions to files and draw captioned pairs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_plugins.metrics.captioning.caption_faults import caption_faults
from lightning_plugins.reports.captioned_pairs import (
    CaptionedPair,
    captions_page,
    contact_sheet,
)
from lightning_plugins.reports.send_picture import send_picture
from lightning_plugins.reports.writer import write_text_atomically


def log_folder(trainer: Trainer, folder: str | None) -> Path:
    """Return ``folder``, or the log folder of the run if it is None.

    Call it on every rank, because reading ``trainer.log_dir`` is a collective operation.
    """
    return Path(folder or trainer.log_dir or trainer.default_root_dir)


class CaptionPictures(Callback):
    """Draws the first pairs with their captions at the end of a fit, a test or a prediction.

    Each pair is shown with a map of the response to the change in each patch, the generated caption
    and the human captions. The maps of all pairs have one scale, with a colour bar. Wrong captions
    are marked with what is wrong, see
    :func:`~lightning_plugins.metrics.captioning.caption_faults.caption_faults`.

    The page ``captions.html`` is written to ``folder``. The picture ``captions`` with the same
    pairs is sent to the loggers that accept images, or written to the folder if there is none. A
    fit draws pairs of the last validation. Only rank 0 draws, and only pairs of its own batches.

    Args:
        num_pairs: Number of pairs, at least 1.
        folder: Folder of the files; None for the log folder.

    Raises:
        ValueError: ``num_pairs`` is below 1.
        MisconfigurationException: The module has no ``generate`` or no ``difference_maps``.
    """

    def __init__(self, num_pairs: int = 12, folder: str | None = None) -> None:
        if num_pairs < 1:
            raise ValueError(f"num_pairs={num_pairs}: expected at least 1")
        self.num_pairs = num_pairs
        self.folder = folder
        self._batches: list[Any] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the module has the required methods."""
        for name in ("generate", "difference_maps"):
            if not callable(getattr(pl_module, name, None)):
                raise MisconfigurationException(
                    f"CaptionPictures requires {type(pl_module).__name__}.{name}(batch), which "
                    "ChangeCaptioner has"
                )

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first pairs of the current validation."""
        if not trainer.sanity_checking:
            self._keep(trainer, batch, batch_idx)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the pairs of the last validation."""
        self._draw(trainer, pl_module)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first test pairs."""
        self._keep(trainer, batch, batch_idx)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the test pairs."""
        self._draw(trainer, pl_module)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first pairs of the prediction."""
        self._keep(trainer, batch, batch_idx)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the predicted pairs."""
        self._draw(trainer, pl_module)

    def _keep(self, trainer: Trainer, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self._batches = []
        if trainer.is_global_zero and sum(len(b["id"]) for b in self._batches) < self.num_pairs:
            self._batches.append(batch)

    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = log_folder(trainer, self.folder)
        batches, self._batches = self._batches, []
        pairs = [pair for batch in batches for pair in _captioned(pl_module, batch)]
        pairs = pairs[: self.num_pairs]
        if not pairs:
            return
        try:
            write_text_atomically(
                folder / "captions.html", captions_page("Captions of changes", pairs)
            )
            send_picture("captions", contact_sheet(pairs), trainer.loggers, folder)
            rank_zero_info(f"{len(pairs)} pairs with captions in {folder / 'captions.html'}")
        except ImportError as error:
            rank_zero_warn(f"captions were not drawn: {error}")


def _captioned(pl_module: Any, batch: Any) -> list[CaptionedPair]:
    captions = pl_module.generate(batch)
    maps = pl_module.difference_maps(batch).cpu().numpy()
    images = batch["images"].permute(0, 1, 3, 4, 2).cpu().numpy()
    references = batch.get("references", [[] for _ in captions])
    changed = batch.get("changed", [None] * len(captions))
    return [
        CaptionedPair(
            name=batch["id"][place],
            before=images[place, 0],
            after=images[place, 1],
            difference=maps[place],
            caption=caption,
            references=tuple(references[place]),
            faults=caption_faults(caption, references[place], changed[place])
            if references[place]
            else (),
        )
        for place, caption in enumerate(captions)
    ]


class CaptionWriter(BasePredictionWriter):
    """Writes the records of ``predict_step``, one JSON object per line.

    Each process writes its own file: rank 0 writes ``captions.jsonl``, rank 1 writes
    ``captions_1.jsonl``, and so on. Up to five captions are also printed.

    Args:
        folder: Folder of the files, created if it does not exist; None for the log folder.
    """

    def __init__(self, folder: str | None = None) -> None:
        super().__init__(write_interval="epoch")
        self.folder = folder

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Write the captions of this process."""
        rank = trainer.global_rank
        lines = [json.dumps(pair, ensure_ascii=False) for batch in predictions for pair in batch]
        file = log_folder(trainer, self.folder) / (
            f"captions_{rank}.jsonl" if rank else "captions.jsonl"
        )
        write_text_atomically(file, "".join(f"{line}\n" for line in lines))
        print(f"{len(lines)} captions in {file}" if len(lines) > 5 else "\n".join(lines))
