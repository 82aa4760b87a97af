"""Operations and collective calls of one training step on shards."""

import tempfile
from collections import Counter

import torch
from lightning.pytorch import Callback, Trainer
from program_sharded import QUIET, case, model_of
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_plugins.callbacks import (
    BlockSharpness,
    HeadScores,
    LateSAM,
)

IDLE = {
    "none": lambda: [],
    "idle": lambda: [
        LateSAM(start=3, unit="step"),
        HeadScores(every_n_steps=5, period=4),
        BlockSharpness(every_n_steps=5),
    ],
    "sam": lambda: [LateSAM(start=0, local=False)],
}


class Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.counts[str(function)] += 1
        return function(*args, **(kwargs or {}))


class ThirdStep(Callback):
    """Counts from the third batch to the fourth: the ranks are compared in the first two steps."""

    def __init__(self):
        self.operations = Operations()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 2:
            self.operations.__enter__()
        if trainer.global_step == 3:
            self.operations.__exit__(None, None, None)


def counts(strategy, accelerator="cpu"):
    """Name of the callbacks -> operation -> number, in the third step of a plain run."""
    found = {}
    for name, callbacks in IDLE.items():
        torch.manual_seed(3)
        third = ThirdStep()
        with tempfile.TemporaryDirectory() as folder:
            Trainer(
                accelerator=accelerator,
                devices=2,
                strategy=strategy(),
                max_epochs=1,
                limit_val_batches=0,
                default_root_dir=folder,
                callbacks=[third, *callbacks()],
                **dict.fromkeys(QUIET, False),
            ).fit(model_of(case()))
        found[name] = dict(third.operations.counts)
    return found
