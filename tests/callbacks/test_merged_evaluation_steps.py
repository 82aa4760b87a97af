"""MergedEvaluation and recalibration support the step signatures and logs that Lightning does.

The mean of one agent is that agent, so each logged value must appear again as ``…_merged``.
"""

import decentralized_trainers as harness
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Subset

from lightning_plugins.callbacks import MergedEvaluation
from lightning_plugins.datamodules import ResumableDataLoader
from lightning_plugins.strategies import SimulatedDecentralizedStrategy
from lightning_plugins.strategies.batch_norm import recalibrate


class Plain(LightningModule):
    """Steps with two arguments; options of ``log`` by name."""

    num_loaders = 1

    def __init__(self, normalized=False):
        super().__init__()
        torch.manual_seed(7)
        normalization = nn.BatchNorm1d(8) if normalized else nn.Identity()
        self.network = nn.Sequential(nn.Linear(6, 8), normalization, nn.Linear(8, 3))

    def loss(self, batch):
        return cross_entropy(self.network(batch[0]), batch[1])

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.loss(batch), prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return ResumableDataLoader(harness.samples(), 4)

    def val_dataloader(self):
        samples = harness.samples()
        shares = [Subset(samples, range(k, len(samples), 3)) for k in range(self.num_loaders)]
        loaders = [DataLoader(share, batch_size=24) for share in shares]
        return loaders if len(loaders) > 1 else loaders[0]


class WithoutIndex(Plain):
    def training_step(self, batch):
        return self.loss(batch)

    def validation_step(self, batch):
        self.log("val/loss", self.loss(batch))


class OtherNames(Plain):
    def training_step(self, batch, i):
        assert isinstance(i, int)
        return self.loss(batch)

    def validation_step(self, *args):
        assert len(args) == 2
        self.log("val/loss", self.loss(args[0]))


class ByPosition(Plain):
    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.loss(batch), True)
        self.log(
            "val/weighted", self.loss(batch), True, False, False, True, batch_size=batch_idx + 1
        )
        self.log_dict({"val/index": float(batch_idx)}, True)


class Extremes(Plain):
    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.loss(batch))
        self.log("val/largest", self.loss(batch), reduce_fx="max")
        self.log("val/smallest", self.loss(batch), reduce_fx=torch.min)


class NamesOfLoaders(Plain):
    num_loaders = 2

    def validation_step(self, batch, batch_idx, dataloader_idx):
        name = ("val/loss", "val/second")[dataloader_idx]
        self.log(name, self.loss(batch), add_dataloader_idx=False)
        self.log("val/each", self.loss(batch))


LOGGED = {
    Plain: ["val/loss"],
    WithoutIndex: ["val/loss"],
    OtherNames: ["val/loss"],
    ByPosition: ["val/loss", "val/weighted", "val/index"],
    Extremes: ["val/loss", "val/largest", "val/smallest"],
    NamesOfLoaders: [
        "val/loss",
        "val/second",
        "val/each/dataloader_idx_0",
        "val/each/dataloader_idx_1",
    ],
}


def fit(folder, module, strategy):
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=1,
        strategy=strategy,
        max_epochs=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[MergedEvaluation("val/loss")],
    )
    trainer.fit(module)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize("module", LOGGED)
def test_for_one_agent_merged_values_equal_the_logged_ones(module, tmp_path):
    metrics = fit(tmp_path, module(), SimulatedDecentralizedStrategy(1))
    merged = {name.removesuffix("_merged") for name in metrics if name.endswith("_merged")}
    assert merged == set(LOGGED[module])
    for name in merged:
        assert metrics[f"{name}_local_mean"] == pytest.approx(metrics[name], abs=1e-6)
        assert metrics[f"{name}_merged"] == pytest.approx(metrics[name], abs=1e-6)


def test_recalibration_gives_the_same_result_with_and_without_batch_idx(tmp_path):
    runs = [
        fit(
            tmp_path, one(normalized=True), SimulatedDecentralizedStrategy(2, buffers="recalibrate")
        )
        for one in (Plain, WithoutIndex)
    ]
    assert runs[0] == runs[1]


@pytest.mark.parametrize("module", [Plain, WithoutIndex, OtherNames])
def test_recalibration_supports_every_signature_of_training_step(module):
    one = module(normalized=True)
    features, labels = harness.samples().tensors
    recalibrate(one, [((features, labels), 0)])
    hidden = one.network[0](features)
    torch.testing.assert_close(one.network[1].running_mean, hidden.mean(0).detach())
    torch.testing.assert_close(one.network[1].running_var, hidden.var(0).detach())
