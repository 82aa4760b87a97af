"""Three stages of a captioner: under FSDP2 on two ranks, killed and resumed there, in one process.

usage: program_sharded_captions.py FOLDER
"""

import functools
import os
import signal
import sys
import warnings
from pathlib import Path

import torch
from forked_ranks import run_ranks, succeed
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from program_sharded import QUIET, whole
from torch.utils.data import DataLoader

from lightning_plugins.callbacks import ExactResume, StagedTraining, TrainingStage
from lightning_plugins.datamodules.change_captioning import ChangeCaptionDataModule
from lightning_plugins.litmodels.change_captioning import ChangeCaptioner

STAGES = [
    TrainingStage(1, {"difference|multi_modal_projector": 0.1}, {"caption_mode": "flatten"}),
    TrainingStage(2, {"vision_tower": 0.02, ".*": 0.1}, {"caption_mode": "random"}),
    TrainingStage(1, {".*": 0.1}, {"caption_mode": "random"}),
]
FIRST_STEPS = (0, 10, 12, 14, 16)  # of each epoch
CHECKPOINT, KILL = 13, 14  # in the second epoch of the second stage


class Record(Callback):
    """Keeps losses and batches; ends the process with SIGKILL after a number of steps."""

    def __init__(self, kill_at=None):
        self.kill_at, self.losses, self.batches = kill_at, [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(trainer.callback_metrics["train/loss"].item())
        self.batches.append(batch)
        if trainer.global_step == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


class BothRanks(ChangeCaptioner):
    """Trains on the batches of two ranks, whose gradients FSDP2 averages."""

    def training_step(self, batch, batch_idx):
        loss = sum(self.loss(one, one["caption"]) for one in batch) / len(batch)
        self.log("train/loss", loss, batch_size=1)
        return loss


class Recorded(ChangeCaptionDataModule):
    """Repeats the batches of two ranks."""

    def train_dataloader(self):
        start, stop = FIRST_STEPS[self.trainer.current_epoch :][:2]
        return DataLoader(self.steps[start:stop], batch_size=None)


def trained(folder, module, data_class, name, kill_at=None, source=None, **options):
    torch.manual_seed(0 if source is None else 11)
    data = data_class(num_train=8, num_val=4, num_test=2, batch_size=2, data_dir=f"{folder}/tiles")
    if data_class is Recorded:
        ranks = [torch.load(f"{folder}/uninterrupted.{rank}")["batches"] for rank in (0, 1)]
        data.steps = list(zip(*ranks, strict=True))
    optimizer = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.5)
    model = module(zero_gate=False, max_new_tokens=6, optimizer=optimizer)
    record = Record(kill_at)
    keep = ModelCheckpoint(f"{folder}/{name}", "{step}", every_n_train_steps=CHECKPOINT)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=sum(stage.epochs for stage in STAGES),
        gradient_clip_val=1.0,
        callbacks=[ExactResume(), StagedTraining(STAGES), record, keep],
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        **{**dict.fromkeys(QUIET, False), "enable_checkpointing": True, **options},
    )
    trainer.fit(model, datamodule=data, ckpt_path=source, weights_only=True)
    weights = {key: whole(value) for key, value in model.state_dict().items()}
    found = {"weights": weights, "losses": record.losses, "batches": record.batches}
    torch.save(found, f"{folder}/{name}.{trainer.global_rank}")


def on_two_ranks(folder, name, kill_at=None, source=None):
    quiet()
    strategy = ModelParallelStrategy(2, 1, process_group_backend="gloo")
    trained(
        folder, ChangeCaptioner, ChangeCaptionDataModule, name, kill_at, source,
        devices=2, strategy=strategy,
    )  # fmt: skip


def quiet():
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)


def main(folder):
    quiet()
    ChangeCaptionDataModule(
        num_train=8, num_val=4, num_test=2, data_dir=f"{folder}/tiles"
    ).prepare_data()
    run = functools.partial(run_ranks, 2, folder / "logs", on_two_ranks, folder)
    succeed(run("uninterrupted"))
    killed = [rank.code for rank in run("killed", KILL)]
    assert -signal.SIGKILL in killed, killed
    succeed(run("resumed", None, f"{folder}/killed/step={CHECKPOINT}.ckpt"))
    trained(folder, BothRanks, Recorded, "one_process", devices=1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
