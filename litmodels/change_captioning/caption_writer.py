"""Captions on disk."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter


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
