"""Batched steps of simulated agents against steps of one agent after the other."""

from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_plugins.strategies import SimulatedDecentralizedStrategy
from lightning_plugins.strategies.communication import Communication
from lightning_plugins.strategies.schedule import Schedule
from lightning_plugins.strategies.topologies import RandomPull

GENERATOR = torch.Generator().manual_seed(0)
DATA = TensorDataset(
    torch.randn(120, 6, generator=GENERATOR), torch.randint(3, (120,), generator=GENERATOR)
)
AGENTS = 5


class Small(LightningModule):
    def __init__(self, optimizer=torch.optim.Adam, counts=False, normalized=False, flips=False):
        super().__init__()
        torch.manual_seed(0)
        extra = [nn.BatchNorm1d(8)] if normalized else []
        self.net = nn.Sequential(nn.Linear(6, 8), *extra, nn.Tanh(), nn.Linear(8, 3))
        self.net[0].bias.requires_grad_(False)
        self.optimizer, self.counts, self.calls, self.flips = optimizer, counts, 0, flips

    def training_step(self, batch, batch_idx):
        features, labels = batch
        loss = cross_entropy(self.net(features), labels)
        if self.counts:
            self.calls += 1
            loss = loss * self.calls
        if self.flips and batch_idx == 2:
            loss = loss if loss > 0 else -loss  # depends on values, which vmap refuses
        self.log("loss", loss, on_epoch=True)
        return {"loss": loss}

    def configure_optimizers(self):
        optimizer = self.optimizer(self.parameters(), lr=0.01, weight_decay=0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


CALLS = []


class Calls(Small):
    """Counts the calls of the training step, outside of the module and of its class."""

    def training_step(self, batch, batch_idx):
        CALLS.append(batch_idx)
        return super().training_step(batch, batch_idx)


def fit(folder, batched, module=None, callbacks=(), ckpt_path=None, **options):
    strategy = SimulatedDecentralizedStrategy(AGENTS, batched=batched)
    strategy.communication = Communication(
        RandomPull(1), Schedule(every_n_steps=2), final_merge=False
    )
    module = module or Small()
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=1,
        strategy=strategy,
        logger=False,
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **{"max_epochs": 2, **options},
    )
    rows = {}
    trainer.strategy.on_train_end = lambda: rows.update(
        {str(i): m.clone() for i, m in enumerate(strategy.rows.parameters.matrices)}
    )
    trainer.fit(module, DataLoader(DATA, 8, shuffle=False), ckpt_path=ckpt_path)
    return torch.cat(list(rows.values()), 1), trainer


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
def test_batched_steps_equal_steps_of_one_agent_after_the_other(optimizer, tmp_path):
    batched, trainer = fit(tmp_path, True, Small(optimizer))
    single, other = fit(tmp_path, False, Small(optimizer))
    torch.testing.assert_close(batched, single, rtol=0, atol=2e-6)
    assert not torch.equal(batched[0], batched[1])
    assert float(trainer.callback_metrics["loss_epoch"]) == pytest.approx(
        float(other.callback_metrics["loss_epoch"]), abs=1e-5
    )
    assert trainer.strategy.ledger.state_dict() == other.strategy.ledger.state_dict()


@pytest.mark.parametrize(
    ("batched", "module"), [(True, Small), (None, Small), (None, partial(Small, flips=True))]
)
def test_batched_training_resumes_exactly(batched, module, tmp_path):
    whole, _ = fit(tmp_path, batched, module())
    save = ModelCheckpoint(dirpath=tmp_path, save_last=True)
    fit(tmp_path, batched, module(), callbacks=[save], max_epochs=1)
    resumed, _ = fit(tmp_path, batched, module(), ckpt_path=tmp_path / "last.ckpt")
    assert torch.equal(whole, resumed)


def test_steps_are_batched_by_default_where_they_equal_single_steps(tmp_path):
    CALLS.clear()
    batched, trainer = fit(tmp_path, None, Calls())
    assert len(CALLS) == trainer.global_step + 1  # the first step is also taken by one agent alone
    single, _ = fit(tmp_path, False)
    torch.testing.assert_close(batched, single, rtol=0, atol=2e-6)


# Each of them trains as well as without batched steps, so the default takes agents in turn.
SINGLE = {
    "dropout": lambda net, x, self: net(torch.nn.functional.dropout(x, 0.5)),
    "numpy": lambda net, x, self: net(x * np.random.rand()),
    "counter": lambda net, x, self: (self.__dict__.update(n=self.n + 1), net(x))[1],
    "class attribute": lambda net, x, self: (setattr(type(self), "n", self.n + 1), net(x))[1],
    "list": lambda net, x, self: (self.seen.append(x.detach().sum()), net(x))[1],
    "control flow": lambda net, x, self: net(x) if x.sum() > 0 else net(-x),
    "item": lambda net, x, self: net(x) * float(x.abs().sum()) ** 0,
    "unused": lambda net, x, self: net[2](torch.ones(len(x), 8)) + 0 * x.sum(),
    "maximum": lambda net, x, self: (self.log("m", x.max(), reduce_fx="max"), net(x))[1],
}


@pytest.mark.parametrize("kind", SINGLE)
def test_other_steps_are_taken_one_agent_after_the_other_by_default(kind, tmp_path):
    class Other(Small):
        n = 0

        def __init__(self):
            super().__init__()
            self.seen = []
            if kind != "class attribute":
                self.n = 0

        def training_step(self, batch, batch_idx):
            return cross_entropy(SINGLE[kind](self.net, batch[0], self), batch[1])

    ends = []
    for batched in (None, False):
        Other.n = 0
        module = Other()
        torch.manual_seed(4)
        np.random.seed(4)
        ends.append(fit(tmp_path, batched, module, max_epochs=1)[0])
        ends.append((module.n, len(module.seen)))
    assert torch.equal(ends[0], ends[2])
    assert ends[1] == ends[3]


def test_a_step_that_stops_being_alike_continues_one_agent_after_the_other(tmp_path):
    flipping, _ = fit(tmp_path, None, Small(flips=True))
    single, _ = fit(tmp_path, False, Small(flips=True))
    torch.testing.assert_close(flipping, single, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        ({"normalized": True}, {}, "buffers .net.1.running_mean"),
        ({"optimizer": torch.optim.RMSprop}, {}, "the optimizer RMSprop"),
        ({}, {"gradient_clip_val": 1.0}, "gradient_clip_val"),
        ({}, {"precision": "bf16-mixed"}, "precision=bf16-mixed"),
        ({"counts": True}, {}, "differs from that of one agent alone"),
    ],
)
def test_what_batched_steps_would_not_reproduce_is_refused(module, options, message, tmp_path):
    with pytest.raises(MisconfigurationException, match=message):
        fit(tmp_path, True, Small(**module), **options)
