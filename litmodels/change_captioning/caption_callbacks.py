"""Pictures of what a captioner sees and says."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_plugins.reports.captioned_pairs import (
    CaptionedPair,
    captions_page,
    contact_sheet,
)
from lightning_plugins.reports.send_picture import send_picture
from lightning_plugins.reports.writer import write_text_atomically


class CaptionPictures(Callback):
    """Draws the first pairs with their captions when a fit, a test or a prediction has ended.

    Beside both images stands how far apart their features are in each patch, and below them the
    caption and what people wrote. The page ``captions.html`` goes to ``folder``; the picture
    ``captions``, with the same pairs, to the loggers that take pictures, else to the folder too.
    A fit draws validation pairs. Only the first process draws, pairs of its own.

    Args:
        num_pairs: how many.
        folder: where files go; None is the log folder.

    Raises:
        ValueError: ``num_pairs`` below 1.
        MisconfigurationException: a module without ``generate`` and ``difference_maps``.
    """

    def __init__(self, num_pairs: int = 12, folder: str | None = None) -> None:
        if num_pairs < 1:
            raise ValueError(f"num_pairs={num_pairs}: expected at least 1")
        self.num_pairs = num_pairs
        self.folder = folder
        self._batches: list[Any] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a module that cannot be asked."""
        for name in ("generate", "difference_maps"):
            if not callable(getattr(pl_module, name, None)):
                raise MisconfigurationException(
                    f"CaptionPictures needs {type(pl_module).__name__}.{name}(batch), as "
                    "ChangeCaptioner has it"
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
        """Keep the first pairs of the latest validation."""
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
        """Keep the first pairs of the test part."""
        self._keep(trainer, batch, batch_idx)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw them."""
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
        """Keep the first pairs that are captioned."""
        self._keep(trainer, batch, batch_idx)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw them."""
        self._draw(trainer, pl_module)

    def _keep(self, trainer: Trainer, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self._batches = []
        if trainer.is_global_zero and sum(len(b["id"]) for b in self._batches) < self.num_pairs:
            self._batches.append(batch)

    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Outside the condition, because asking for the folder is a collective operation.
        folder = Path(self.folder or trainer.log_dir or trainer.default_root_dir)
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
    nothing: list[list[str]] = [[] for _ in captions]
    return [
        CaptionedPair(name, before, after, difference, caption, tuple(references))
        for name, (before, after), difference, caption, references in zip(
            batch["id"], images, maps, captions, batch.get("references", nothing), strict=True
        )
    ]


class CaptionWriter(BasePredictionWriter):
    """Writes what ``predict_step`` gives, one JSON object a line, and shows it.

    Each process writes a file of its own: ``captions.jsonl``, and from the second rank on
    ``captions_1.jsonl`` and so on.

    Args:
        folder: where the files go; made if it is not there.
    """

    def __init__(self, folder: str = ".") -> None:
        super().__init__(write_interval="epoch")
        self.folder = Path(folder)

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
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / (f"captions_{rank}.jsonl" if rank else "captions.jsonl")
        partial = file.with_suffix(".partial")
        partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        partial.replace(file)
        print(f"{len(lines)} captions in {file}" if len(lines) > 5 else "\n".join(lines))
