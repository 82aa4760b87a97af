"""Trains gossiping agents, and SAM under DDP, on two devices of one kind; run by torchrun.

usage: program_two_devices.py ACCELERATOR OUTPUT_FOLDER
"""

import sys
import warnings

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_plugins.callbacks import LateSAM
from lightning_plugins.optimizers import AdamWPower
from lightning_plugins.strategies import DecentralizedStrategy

BACKENDS = {"cpu": "gloo", "cuda": "nccl"}


class Classifier(LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(7)
        self.network = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))

    def training_step(self, batch, batch_idx):
        return cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self):
        return AdamWPower(self.parameters(), lr=1e-2)

    def train_dataloader(self):
        generator = torch.Generator().manual_seed(3)
        features = torch.randn(64, 6, generator=generator)
        labels = torch.randint(3, (64,), generator=generator)
        return DataLoader(TensorDataset(features, labels), batch_size=4)


def fit(accelerator, strategy, folder, **options):
    module = Classifier()
    trainer = Trainer(
        default_root_dir=folder,
        accelerator=accelerator,
        devices=2,
        strategy=strategy,
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(module)
    weights = torch.cat([p.detach().cpu().flatten() for p in module.parameters()])
    return trainer.global_rank, weights


def main(accelerator, folder):
    warnings.simplefilter("ignore")
    backend = BACKENDS[accelerator]
    rank, gossiped = fit(accelerator, DecentralizedStrategy(process_group_backend=backend), folder)
    _, shared = fit(
        accelerator,
        DDPStrategy(process_group_backend=backend),
        folder,
        callbacks=[LateSAM(start=0.5)],
    )
    torch.save({"decentralized": gossiped, "late SAM": shared}, f"{folder}/{rank}.pt")
    # Threads of gloo that are still running may abort the interpreter at exit.
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
