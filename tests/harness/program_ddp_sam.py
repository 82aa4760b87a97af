"""Trains several cases with LateSAM under DDP in two processes.

usage: program_ddp_sam.py OUTPUT_FOLDER CASES_AS_JSON
"""

import json
import sys
import warnings

import torch
from forked_ranks import run_ranks, succeed
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_plugins.callbacks import LateSAM

SAMPLES, BATCH_SIZE = 32, 4


def network():
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))


def samples():
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(SAMPLES, 6, generator=generator)
    return features, torch.randint(3, (SAMPLES,), generator=generator)


def optimizer_of(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


class Classifier(LightningModule):
    def __init__(self):
        super().__init__()
        self.network = network()

    def training_step(self, batch, batch_idx):
        return cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self):
        return optimizer_of(self.parameters())

    def train_dataloader(self):
        features, labels = samples()
        share = slice(self.trainer.global_rank, None, 2)
        return DataLoader(TensorDataset(features[share], labels[share]), batch_size=BATCH_SIZE)


def on_each_rank(folder, cases):
    warnings.simplefilter("ignore")
    for name, case in cases.items():
        module = Classifier()
        trainer = Trainer(
            default_root_dir=folder,
            accelerator="cpu",
            devices=2,
            strategy=DDPStrategy(process_group_backend="gloo", **case["strategy"]),
            max_epochs=2,
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[LateSAM(rho=0.1, **case["sam"])],
            **case["trainer"],
        )
        trainer.fit(module)
        path = f"{folder}/{name}-{trainer.global_rank}.pt"
        torch.save(module.network.state_dict(), path)


if __name__ == "__main__":
    succeed(run_ranks(2, sys.argv[1], on_each_rank, sys.argv[1], json.loads(sys.argv[2])))
