"""Callbacks that record the batches and the final random state of a run."""

import hashlib
import json
from pathlib import Path

import torch
from lightning.pytorch import Callback


class RecordBatches(Callback):
    """Appends a line per batch to ``FOLDER/RANK.jsonl``: the step, and a hash of each sample."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        samples = [hashlib.sha256(window.numpy().tobytes()).hexdigest() for window in batch]
        with open(self.folder / f"{trainer.global_rank}.jsonl", "a") as file:
            file.write(json.dumps([trainer.global_step, samples]) + "\n")


def recorded(folder):
    """Load the records: a dict from rank to a dict from step to hashes of the samples."""
    return {
        int(path.stem): dict(json.loads(line) for line in path.read_text().splitlines())
        for path in Path(folder).glob("*.jsonl")
    }


class RecordRandomState(Callback):
    """Records the state of torch's generator at the end of training."""

    def on_train_end(self, trainer, pl_module):
        self.state = torch.get_rng_state()
