"""Small modules that are sharded or split as the device mesh says, and their data."""

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.functional import cross_entropy

from lightning_plugins._lightning_compat.processes import data_share
from lightning_plugins.datamodules import ResumableDataLoader
from lightning_plugins.litmodels import CausalLM

VOCABULARY, CONTEXT, SAMPLES, BATCH = 32, 12, 16, 4


class Tokens(torch.utils.data.Dataset):
    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return torch.randint(VOCABULARY, (CONTEXT + 1,), generator=generator)


class Model(CausalLM):
    def train_dataloader(self):
        return ResumableDataLoader.for_trainer(self.trainer, Tokens(), BATCH // shares(self))

    def val_dataloader(self):
        return ResumableDataLoader.for_trainer(self.trainer, Tokens(), BATCH, shuffle=False)


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return torch.rand(1, 4, 4, generator=generator), index % 3


class Classifier(LightningModule):
    """A small network, sharded or split as the device mesh says."""

    data = Images()

    def configure_model(self):
        with torch.random.fork_rng(()):
            torch.manual_seed(3)
            self.network = nn.Sequential(
                nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3, bias=False)
            )
        if self.device_mesh is not None:
            split = {"1": ColwiseParallel(), "3": RowwiseParallel()}
            parallelize_module(self.network, self.device_mesh["tensor_parallel"], split)
            if self.device_mesh["data_parallel"].size() > 1:
                fully_shard(self.network, mesh=self.device_mesh["data_parallel"])

    def forward(self, images):
        return self.network(images)

    def training_step(self, batch, batch_idx):
        return cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.training_step(batch, batch_idx)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)

    def train_dataloader(self, shuffle=True):
        size = BATCH // shares(self)
        return ResumableDataLoader.for_trainer(self.trainer, self.data, size, shuffle=shuffle)

    def val_dataloader(self):
        return self.train_dataloader(shuffle=False)


TEXTS = [{"text": "plain words " * (1 + n % 3) + chr(97 + n), "label": n % 2} for n in range(16)]


class Detector(Classifier):
    """Classifies texts by the letters they contain."""

    data = TEXTS

    def forward(self, texts):
        counts = [[text.count(chr(97 + n)) for n in range(16)] for text in texts]
        counts = torch.tensor(counts, dtype=torch.float32, device=self.device)
        return self.network(counts.view(-1, 1, 4, 4))

    def training_step(self, batch, batch_idx):
        return cross_entropy(self(batch["text"]), batch["label"])

    @torch.no_grad()
    def probabilities(self, texts, seed):
        return self(texts).softmax(dim=1)[:, 1]


def shares(module):
    return data_share(module.trainer)[1]
