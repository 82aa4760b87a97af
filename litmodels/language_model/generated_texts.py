"""Prints and stores the texts that a language model generates in ``predict``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from lightning_plugins.reports.writer import write_text_atomically


class GeneratedTexts(BasePredictionWriter):
    """Prints the texts of ``predict`` while they are generated, and writes them to a file.

    ``generated.jsonl`` has one JSON object per prompt with ``prompt``, ``text``, ``stopped``, and
    the ``perplexity`` and ``bits_per_byte`` of the prompt. Rank 1 writes ``generated_1.jsonl``, and
    so on. Only the first process prints.

    Args:
        folder: Folder of the files, created if it does not exist; None means the log folder.
    """

    def __init__(self, folder: str | None = None) -> None:
        super().__init__(write_interval="epoch")
        self.folder = folder

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Receive each piece of text when it is generated."""
        if trainer.is_global_zero and hasattr(pl_module, "on_text"):
            pl_module.on_text = _print_piece  # type: ignore[assignment]

    def on_predict_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Print the prompts."""
        if trainer.is_global_zero:
            print(*batch, sep="\n", end="", flush=True)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Print the perplexity of the prompts."""
        super().on_predict_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        if not trainer.is_global_zero:
            return
        scored = [one for one in outputs or () if one["perplexity"] is not None]
        told = [
            f"[prompt: perplexity {one['perplexity']:.2f}, {one['bits_per_byte']:.3f} bits per "
            "byte]"
            for one in scored
        ]
        print("", *told, sep="\n")

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Write the texts of this process."""
        rank = trainer.global_rank
        folder = Path(self.folder or trainer.log_dir or trainer.default_root_dir)
        lines = [json.dumps(one, ensure_ascii=False) for batch in predictions for one in batch]
        file = folder / (f"generated_{rank}.jsonl" if rank else "generated.jsonl")
        write_text_atomically(file, "".join(f"{line}\n" for line in lines))
        print(f"{len(lines)} texts in {file}")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop printing."""
        if hasattr(pl_module, "on_text"):
            pl_module.on_text = None  # type: ignore[assignment]


def _print_piece(text: str) -> None:
    print(text, end="", flush=True)
