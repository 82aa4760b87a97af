"""Adversarial training and evaluation under DDP in two processes.

usage: program_ddp_adversarial.py OUTPUT_FOLDER
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

from lightning_plugins.callbacks import AdversarialEvaluation, LateAdversarialTraining

SAMPLES, BATCH_SIZE, EPOCHS = 40, 4, 6
ATTACK = {"eps": 0.1, "steps": 3, "random_start": False}
EVALUATION = {"eps": 0.1, "steps": 3, "restarts": 1}


def network():
    torch.manual_seed(7)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(16, 16), nn.Dropout(0.5), nn.Tanh(), nn.Linear(16, 3)
    )


def samples():
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(SAMPLES, 1, 4, 4, generator=generator)
    weight = torch.randn(3, 16, generator=generator)
    return images, ((images.flatten(1) - 0.5) @ weight.T).argmax(dim=1)


def optimizer_of(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


class Classifier(LightningModule):
    def __init__(self):
        super().__init__()
        self.network = network()
        self.network[2].p = 0.0

    def forward(self, images):
        return self.network(images)

    def training_step(self, batch, batch_idx):
        return cross_entropy(self(batch[0]), batch[1])

    def test_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return optimizer_of(self.parameters())

    def train_dataloader(self):
        images, labels = samples()
        share = slice(self.trainer.global_rank, None, 2)
        return DataLoader(TensorDataset(images[share], labels[share]), batch_size=BATCH_SIZE)

    def test_dataloader(self):
        # Shares of unequal size: 24 and 16 samples.
        images, labels = samples()
        share = slice(None, 24) if self.trainer.global_rank == 0 else slice(24, None)
        return DataLoader(TensorDataset(images[share], labels[share]), batch_size=8)


def on_each_rank(folder):
    warnings.simplefilter("ignore")
    module = Classifier()
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=2,
        strategy=DDPStrategy(process_group_backend="gloo"),
        max_epochs=EPOCHS,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            LateAdversarialTraining(start=0.5, **ATTACK),
            AdversarialEvaluation(**EVALUATION),
        ],
    )
    trainer.fit(module)
    (result,) = trainer.test(module, verbose=False)
    rank = trainer.global_rank
    torch.save(module.network.state_dict(), f"{folder}/{rank}.pt")
    with open(f"{folder}/{rank}.json", "w", encoding="utf-8") as file:
        json.dump(result, file)


if __name__ == "__main__":
    succeed(run_ranks(2, sys.argv[1], on_each_rank, sys.argv[1]))
