"""Models that exchange their weights in unusual ways, in real processes with Trainers."""

import os
import warnings

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import AUROC

from lightning_plugins.callbacks import CommunicationSchedule
from lightning_plugins.strategies import DecentralizedStrategy
from lightning_plugins.strategies.topologies import Complete

GENERATOR = torch.Generator().manual_seed(0)
DATA = TensorDataset(
    torch.randn(256, 8, generator=GENERATOR), torch.randint(4, (256,), generator=GENERATOR)
)


class Small(LightningModule):
    def __init__(self, lr=0.05):
        super().__init__()
        self.lr = lr
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))

    def training_step(self, batch, batch_idx):
        return cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class Toggled(LightningModule):
    """Two networks, each trained while the other's gradients are disabled."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.make, self.judge = nn.Linear(8, 8), nn.Linear(8, 1)

    def training_step(self, batch, batch_idx):
        for optimizer, sign in zip(self.optimizers(), (-1, 1), strict=True):
            self.toggle_optimizer(optimizer)
            optimizer.zero_grad()
            self.manual_backward(sign * self.judge(self.make(batch[0])).mean())
            optimizer.step()
            self.untoggle_optimizer(optimizer)

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), lr=0.05) for part in (self.make, self.judge)]


class Spectral(Small):
    """Multiplies a spectrum by complex weights."""

    def __init__(self):
        super().__init__()
        self.filter = nn.Parameter(torch.ones(5, dtype=torch.complex64))

    def training_step(self, batch, batch_idx):
        filtered = torch.fft.irfft(torch.fft.rfft(batch[0]) * self.filter, n=8)
        return cross_entropy(self.net(filtered), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class Partial(Small):
    """Has a branch that only the second agent uses."""

    def __init__(self):
        super().__init__()
        self.branch = nn.Linear(8, 4)

    def training_step(self, batch, batch_idx):
        logits = self.net(batch[0])
        if self.global_rank == 1:
            logits = logits + self.branch(batch[0])
        return cross_entropy(logits, batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Ranked(Small):
    """Scores a validation set of another size on each agent with a metric of list state."""

    def __init__(self):
        super().__init__()
        self.auroc = AUROC(task="multiclass", num_classes=4)

    def validation_step(self, batch, batch_idx):
        self.auroc(self.net(batch[0]).softmax(1), batch[1])
        self.log("auroc", self.auroc)

    def val_dataloader(self):
        own = TensorDataset(*DATA[: (64, 200)[self.global_rank]])
        return DataLoader(own, 32)


class Freeze(Callback):
    """Freezes the first layer from the start, or from ``freeze_at``, until ``unfreeze_at``."""

    def __init__(self, freeze_at=0, unfreeze_at=None):
        self.freeze_at, self.unfreeze_at = freeze_at, unfreeze_at

    def on_fit_start(self, trainer, pl_module):
        if self.freeze_at == 0:
            pl_module.net[0].requires_grad_(False)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.freeze_at and trainer.global_step == self.freeze_at:
            pl_module.net[0].requires_grad_(False)
        if trainer.global_step == self.unfreeze_at:
            pl_module.net[0].requires_grad_(True)
            self.before = pl_module.net[0].weight.detach().clone()

    def on_train_batch_end(self, trainer, pl_module, *_):
        if self.unfreeze_at and trainer.global_step == self.unfreeze_at + 5:
            pl_module.moved = float((pl_module.net[0].weight - self.before).norm())


def averaged_every(steps, **options):
    return CommunicationSchedule(every_n_steps=steps, final_merge=False, **options)


def cases():
    return {
        "toggled": (Toggled, [averaged_every(1)], {}, {}),
        "complex": (Spectral, [averaged_every(5)], {}, {}),
        "unfrozen": (
            lambda: Small(0.001),
            [Freeze(0, 10), averaged_every(5, outer_lr=0.7)],
            {},
            {"max_steps": 16},
        ),
        "unfrozen, adaptive": (
            Small,
            [Freeze(0, 4), averaged_every(2, shape="adaptive", threshold=1e-9)],
            {},
            {},
        ),
        "frozen later": (Small, [Freeze(4), CommunicationSchedule(rate=0.0)], {}, {}),
        "unused": (Partial, [averaged_every(5)], {"optimizer_state": "average"}, {}),
        "ranked": (Ranked, [], {}, {"max_steps": -1, "max_epochs": 1}),
        **{
            wire: (Small, [averaged_every(2)], {"wire": wire}, {})
            for wire in ("weights", "bfloat16", "int8")
        },
        "int8, outer": (Small, [averaged_every(2, outer_lr=0.7)], {"wire": "int8"}, {}),
    }


def train_models(agent, num_agents, port, folder, names):
    """Train each case and return its parameters, bytes of gossip and logged values."""
    os.environ |= {
        "LOCAL_RANK": str(agent),
        "NODE_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    warnings.simplefilter("ignore")
    results = {}
    for name in names:
        torch.manual_seed(0)
        make, callbacks, options, trainer = cases()[name]
        strategy = DecentralizedStrategy(Complete(), timeout_seconds=20, **options)
        module = make()
        run = Trainer(
            default_root_dir=folder,
            accelerator="cpu",
            devices=num_agents,
            strategy=strategy,
            callbacks=callbacks,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **{"max_steps": 10, **trainer},
        )
        run.fit(module, DataLoader(DATA, 16, shuffle=True))
        states = [
            {key: value.detach().clone() for key, value in own.items() if torch.is_tensor(value)}
            for _, own in sorted(run.optimizers[0].state_dict()["state"].items())
        ]
        results[name] = {
            "parameters": {n: p.detach().clone() for n, p in module.named_parameters()},
            "states": states,
            "bytes": strategy.ledger.of(agent, "gossip").bytes_sent,
            "moved": getattr(module, "moved", None),
            "metrics": {key: float(value) for key, value in run.callback_metrics.items()},
        }
    return results
