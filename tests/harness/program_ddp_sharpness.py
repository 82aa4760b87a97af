"""Trains with SharpnessMonitor under DDP in two processes.

usage: program_ddp_sharpness.py OUTPUT_FOLDER
"""

import json
import sys
import warnings

import torch
from forked_ranks import run_ranks, succeed
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_plugins.callbacks import SharpnessMonitor


class Classifier(LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(7)
        self.network = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, features):
        return self.network(features)

    def training_step(self, batch, batch_idx):
        return cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, callbacks, **arguments):
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(32, 6, generator=generator)
    labels = torch.randint(3, (32,), generator=generator)
    module = Classifier()
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=2,
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        **arguments,
    )
    trainer.fit(module, DataLoader(TensorDataset(features, labels), batch_size=4))
    return module, trainer


def on_each_rank(folder):
    warnings.simplefilter("ignore")
    plain, _ = fit(folder, [], logger=False, enable_checkpointing=False)
    monitor = SharpnessMonitor(max_share=1)
    best = ModelCheckpoint(folder, monitor="sharpness/lambda_max", filename="flattest")
    module, trainer = fit(folder, [monitor, best], logger=CSVLogger(folder, "", ""))
    refused = ""
    try:
        synchronized = SharpnessMonitor(mode="train")
        fit(folder, [synchronized], logger=False, sync_batchnorm=True, enable_checkpointing=False)
    except (MisconfigurationException, ValueError) as error:
        refused = str(error)
    same = all(
        torch.equal(value, module.state_dict()[name]) for name, value in plain.state_dict().items()
    )
    found = {
        "steps": monitor.steps,
        "values": monitor.values,
        "monitored": float(trainer.callback_metrics["sharpness/lambda_max"]),
        "same_weights": same,
        "refused": refused,
    }
    with open(f"{folder}/rank-{trainer.global_rank}.json", "w", encoding="utf-8") as file:
        json.dump(found, file)


if __name__ == "__main__":
    succeed(run_ranks(2, sys.argv[1], on_each_rank, sys.argv[1]))
