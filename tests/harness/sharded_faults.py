"""Trainings on two ranks, one of which does what the other one does not."""

import functools

import torch
from forked_ranks import run_ranks
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from program_sharded import BACKENDS, QUIET, SIZES, quiet
from sharded_models import CONTEXT, VOCABULARY, Model

from lightning_plugins.callbacks import BlockSharpness, ExactResume, HeadScores, LateSAM

STRATEGIES = {"ddp": DDPStrategy, "fsdp2": functools.partial(ModelParallelStrategy, 2, 1)}
LAST_BATCH = 2  # after the first two steps, in which the ranks compare every place


class Faulty(Model):
    """Does one thing on one rank alone."""

    fault, rank = "", 0

    def is_at(self, fault):
        return fault == self.fault and self.trainer.global_rank == self.rank

    def training_step(self, batch, batch_idx):
        if self.is_at("raises") and self.trainer.global_step == LAST_BATCH:
            raise ValueError("a batch that only this rank has")
        loss = super().training_step(batch, batch_idx)
        if self.is_at("logs"):
            self.log("own", 1.0, sync_dist=True)
        if self.is_at("logs a mean"):
            self.log("own", 1.0, sync_dist=True, on_step=False, on_epoch=True)
        if self.is_at("skips") and self.trainer.global_step == 1:
            return None
        return loss

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        if self.is_at("logs in validation"):
            self.log("own", 1.0, sync_dist=True)


class Stops(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if pl_module.is_at("stops") and trainer.global_step > LAST_BATCH:
            trainer.should_stop = True


def train(accelerator, strategy, fault, rank):
    quiet()
    torch.manual_seed(3)
    Faulty.fault, Faulty.rank = fault, rank
    model = Faulty(
        "llama", VOCABULARY, CONTEXT, SIZES, optimizer=lambda named: torch.optim.SGD(named, lr=0.5)
    )
    Trainer(
        accelerator=accelerator,
        devices=2,
        strategy=STRATEGIES[strategy](process_group_backend=BACKENDS[accelerator]),
        max_epochs=4,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        callbacks=[
            ExactResume(),
            LateSAM(start=0, local=False),
            HeadScores(every_n_steps=4, period=4, ablation=False),
            BlockSharpness(every_n_steps=1),
            Stops(),
        ],
        **dict.fromkeys(QUIET, False),
    ).fit(model)


FAULTS = [  # strategy, fault, rank
    ("ddp", "raises", 0),
    ("ddp", "stops", 1),
    ("ddp", "logs", 0),
    ("ddp", "logs in validation", 1),
    ("fsdp2", "raises", 1),
    ("fsdp2", "stops", 0),
    ("fsdp2", "logs", 1),
    ("fsdp2", "logs a mean", 0),
]


def ends(folder, accelerator="cpu"):
    """Fault -> how each rank ended, as plain data."""
    found = {}
    for number, fault in enumerate(FAULTS):
        ranks = run_ranks(2, folder / str(number), train, accelerator, *fault, limit=30)
        found[fault] = [(one.code, one.seconds, one.text) for one in ranks]
    return found
