"""What ``predict`` found, on screen and on disk."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

_SHOWN = 10


class ScanWriter(BasePredictionWriter):
    """Shows the scans of ``predict``, and writes them if a folder is given, a line of JSON each.

    Each process writes a file of its own: ``scans.jsonl``, and from the second rank on
    ``scans_1.jsonl`` and so on. Of many texts the first ten are shown.

    Args:
        folder: where the files go; made if it is not there. None writes none.
    """

    def __init__(self, folder: str | None = None) -> None:
        super().__init__(write_interval="epoch")
        self.folder = Path(folder) if folder else None

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Show and write the scans of this process."""
        scans = [scan for batch in predictions for scan in batch]
        print("\n".join(str(scan) for scan in scans[:_SHOWN]))
        if self.folder is None:
            return
        lines = [json.dumps(scan.as_record()) for scan in scans]
        self.folder.mkdir(parents=True, exist_ok=True)
        rank = trainer.global_rank
        file = self.folder / (f"scans_{rank}.jsonl" if rank else "scans.jsonl")
        partial = file.with_suffix(".partial")
        partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        partial.replace(file)
        print(f"{len(lines)} scans in {file}")
