"""A small classifier with all state that a second pass could change, and its data."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

SAMPLES, FEATURES, CLASSES, BATCH_SIZE = 30, 6, 3, 5


def network():
    torch.manual_seed(7)
    return nn.Sequential(
        nn.Linear(FEATURES, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(16, CLASSES),
    )


def samples():
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(SAMPLES, FEATURES, generator=generator)
    return features, torch.randint(CLASSES, (SAMPLES,), generator=generator)


def batches(batch_size=BATCH_SIZE):
    # With its own generator, because a DataLoader otherwise draws from the global one each epoch.
    return DataLoader(
        TensorDataset(*samples()), batch_size=batch_size, generator=torch.Generator().manual_seed(0)
    )


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-3)


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=0.01)


class Passes(Dataset):
    def __init__(self):
        self.losses = []


class Classifier(LightningModule):
    """Logs its loss and accuracy, and counts its training steps and their passes.

    ``passes.losses`` has the loss of every call of ``training_step``: a data set is not restored
    after a second pass.
    """

    def __init__(self, optimizer=sgd, cosine_steps=None):
        super().__init__()
        self.network = network()
        self.accuracy = MulticlassAccuracy(CLASSES, average="micro")
        self.optimizer, self.cosine_steps = optimizer, cosine_steps
        self.training_steps = 0
        self.passes = Passes()

    def forward(self, features):
        return self.network(features)

    def training_step(self, batch, batch_idx):
        self.training_steps += 1
        features, labels = batch
        logits = self(features)
        loss = cross_entropy(logits, labels)
        self.passes.losses.append(loss.item())
        self.accuracy(logits, labels)
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        self.log("train/accuracy", self.accuracy, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        optimizer = self.optimizer(self.parameters())
        if self.cosine_steps is None:
            return optimizer
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.cosine_steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def trainer(tmp_path, callbacks=(), **arguments):
    defaults = {
        "default_root_dir": tmp_path,
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(callbacks=list(callbacks), **{**defaults, **arguments})


def train(tmp_path, callbacks=(), module=None, seed=11, **arguments):
    """Fit and return (module, trainer)."""
    module = module or Classifier()
    run = trainer(tmp_path, callbacks, **arguments)
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*logging interval.*")
        run.fit(module, batches())
    return module, run


def weights(module):
    return {name: value.clone() for name, value in module.network.state_dict().items()}


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different, f"{different} differ"


@pytest.fixture
def task():
    """The functions above as a fixture, because test files do not import each other."""
    return SimpleNamespace(
        Classifier=Classifier,
        adamw=adamw,
        assert_same_bits=assert_same_bits,
        batches=batches,
        network=network,
        samples=samples,
        sgd=sgd,
        train=train,
        trainer=trainer,
        weights=weights,
        steps_an_epoch=SAMPLES // BATCH_SIZE,
    )
