"""Trains two agents of two processes, which Lightning's launcher starts, until a failure.

usage: program_stopped_process.py OUTPUT_FOLDER
"""

import os
import sys
import time
from pathlib import Path

from decentralized_trainers import Classifier
from lightning.pytorch import Callback, Trainer

from lightning_plugins.strategies import DecentralizedStrategy


class Ready(Callback):
    """Writes the number of each process once it has trained."""

    def on_train_batch_end(self, trainer, pl_module, *_):
        time.sleep(0.02)
        path = Path(sys.argv[1], f"{trainer.global_rank}.pid")
        if trainer.global_step == 5 and not path.exists():
            path.with_suffix(".new").write_text(str(os.getpid()))
            path.with_suffix(".new").rename(path)


if __name__ == "__main__":
    trainer = Trainer(
        default_root_dir=sys.argv[1],
        accelerator="cpu",
        devices=4,
        strategy=DecentralizedStrategy(processes_per_agent=2, timeout_seconds=4),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Ready()],
        max_epochs=-1,
        limit_val_batches=0,
    )
    trainer.fit(Classifier(plain=True))
