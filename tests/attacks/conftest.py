"""Networks whose worst case is known, and a network trained on the digits."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lightning_plugins.datamodules import DigitsDataModule


class Quantised(nn.Module):
    """A network behind rounded pixels: robust to gradient attacks only."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network((images * 8).round() / 8)


@pytest.fixture(scope="session")
def digits():
    """A small network trained on the digits, another for transfer, and 200 test samples."""
    data = DigitsDataModule()
    data.setup()
    images, labels = data.train_dataset.images, data.train_dataset.labels

    def trained(seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
            optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
            for _ in range(60):
                optimizer.zero_grad()
                cross_entropy(network(images), labels).backward()
                optimizer.step()
        return network

    return SimpleNamespace(
        network=trained(0),
        surrogate=trained(1),
        images=data.test_dataset.images[:200],
        labels=data.test_dataset.labels[:200],
        Quantised=Quantised,
    )
