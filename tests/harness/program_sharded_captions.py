"""Started by torchrun on two processes: three stages of a captioner, under FSDP2 and under DDP.

usage: program_sharded_captions.py FOLDER
"""

import functools
import sys
import warnings

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from program_sharded import QUIET, whole

from lightning_plugins.callbacks import StagedTraining, TrainingStage
from lightning_plugins.datamodules.change_captioning import ChangeCaptionDataModule
from lightning_plugins.litmodels.change_captioning import ChangeCaptioner

STAGES = [
    TrainingStage(1, {"difference|multi_modal_projector": 0.1}),
    TrainingStage(1, {"vision_tower": 0.02, ".*": 0.1}),
    TrainingStage(1, {".*": 0.1}),
]


class Losses(Callback):
    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.values.append(outputs["loss"].item())


def train(strategy, folder):
    torch.manual_seed(0)
    data = ChangeCaptionDataModule(
        num_train=8, num_val=4, num_test=2, batch_size=2, data_dir=f"{folder}/tiles"
    )
    optimizer = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.5)
    model = ChangeCaptioner(zero_gate=False, max_new_tokens=6, optimizer=optimizer)
    losses = Losses()
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        max_epochs=len(STAGES),
        gradient_clip_val=1.0,
        callbacks=[StagedTraining(STAGES), losses],
        num_sanity_val_steps=0,
        **dict.fromkeys(QUIET, False),
    )
    trainer.fit(model, datamodule=data)
    weights = {name: whole(value) for name, value in model.state_dict().items()}
    return {"weights": weights, "losses": losses.values}


def main(folder):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found = {
        "fsdp2": train(ModelParallelStrategy(2, 1, process_group_backend="gloo"), folder),
        "ddp": train("ddp_find_unused_parameters_true", folder),
    }
    torch.save(found, f"{folder}/found.{dist.get_rank()}")


if __name__ == "__main__":
    main(sys.argv[1])
