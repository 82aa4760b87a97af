"""Trainers with DecentralizedStrategy in real processes, started by a fork server.

LOCAL_RANK and MASTER_PORT are set, so Lightning treats them as processes of an external launcher.
"""

import os
import signal
import socket
import warnings
from functools import partial
from pathlib import Path

import torch
from decentralized_agents import results_of, start_agents
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from lightning_plugins.callbacks import ExactResume
from lightning_plugins.datamodules import ResumableDataLoader
from lightning_plugins.nn.shards import whole
from lightning_plugins.optimizers import (
    BlockwiseAdamW,
    BlockwiseSchedule,
    SGDPower,
    gradpower,
)
from lightning_plugins.strategies import DecentralizedStrategy

SAMPLES, BATCH_SIZE = 96, 4


def samples():
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(SAMPLES, 6, generator=generator)
    return TensorDataset(features, torch.randint(3, (SAMPLES,), generator=generator))


class Stream(IterableDataset):
    """One agent's share of the samples, without a length."""

    def __init__(self, rank, world_size):
        self.rank, self.world_size = rank, world_size

    def __iter__(self):
        dataset = samples()
        return (dataset[i] for i in range(self.rank, len(dataset), self.world_size))


class Classifier(LightningModule):
    """A classifier with optional dropout and batch normalization that logs reducible values."""

    def __init__(
        self,
        plain=False,
        lr=0.1,
        momentum=0.9,
        init_seed=7,
        data=None,
        batches=None,
        plateau=False,
        manual=False,
        hidden=None,
        dropout=0.2,
        power=None,
        together=False,
        sharded=False,
    ):
        super().__init__()
        # Without a seed each agent starts from different weights.
        torch.manual_seed(int(os.environ["LOCAL_RANK"]) if init_seed is None else init_seed)
        width = hidden[int(os.environ["LOCAL_RANK"])] if hidden else 8
        extras = [] if plain else [nn.BatchNorm1d(width), nn.Dropout(dropout)]
        self.network = nn.Sequential(nn.Linear(6, width), *extras, nn.Tanh(), nn.Linear(width, 3))
        self.accuracy = MulticlassAccuracy(3, average="micro")
        self.lr, self.momentum = lr, momentum
        self.power, self.together, self.sharded = power, together, sharded
        self.data, self.batches, self.plateau = data, batches, plateau
        self.automatic_optimization = not manual
        self.seen, self.validated = [], 0

    def configure_model(self):
        if self.sharded:
            for layer in self.network:
                if next(layer.parameters(), None) is not None:
                    fully_shard(layer, mesh=self.device_mesh["data_parallel"])

    def training_step(self, batch, batch_idx):
        self.seen += batch[0][:, 0].tolist()
        loss = cross_entropy(self.network(batch[0]), batch[1])
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        if not self.automatic_optimization:
            self.optimizers().zero_grad()
            self.manual_backward(loss)
            self.optimizers().step()
        return loss

    def validation_step(self, batch, batch_idx):
        self.validated += len(batch[0])
        logits = self.network(batch[0])
        self.accuracy(logits, batch[1])
        self.log("val/accuracy", self.accuracy)
        self.log("val/loss", cross_entropy(logits, batch[1]), sync_dist=True)
        self.log("val/own", 1.0 + self.global_rank)
        self.log("val/agent", float(self.global_rank), sync_dist=True)

    def configure_optimizers(self):
        if self.together:
            optimizer, schedule = powered_blockwise(
                self.named_parameters(), self.trainer.estimated_stepping_batches
            )
            scheduler = {"scheduler": schedule, "interval": "step"}
            return {"optimizer": optimizer, "lr_scheduler": scheduler}
        optimizer = torch.optim.SGD(self.parameters(), lr=self.lr, momentum=self.momentum)
        if self.power is not None:
            optimizer = SGDPower(
                self.parameters(), lr=self.lr, momentum=self.momentum, p=self.power
            )
        if self.plateau:
            schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, threshold=9.0, patience=0
            )
            return {"optimizer": optimizer, "lr_scheduler": schedule, "monitor": "val/loss"}
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 5, 0.9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train_dataloader(self):
        if self.data == "plain":
            return DataLoader(samples(), batch_size=BATCH_SIZE, shuffle=True)
        if self.data == "of four":  # an agent of one process takes two processes' batches as one
            share = 4 // self.trainer.world_size
            first = share * self.trainer.global_rank
            order = range(SAMPLES)
            batches = [
                [i for k in range(first, first + share) for i in order[k::4][start : start + 4]]
                for start in range(0, SAMPLES // 4, 4)
            ]
            return DataLoader(samples(), batch_sampler=batches)
        if self.data == "uneven":
            size = 2 * (1 + self.trainer.global_rank)
            return DataLoader(torch.utils.data.Subset(samples(), range(6 * size)), size)
        if self.data == "stream":
            stream = Stream(self.trainer.global_rank, self.trainer.world_size)
            return DataLoader(stream, BATCH_SIZE)
        dataset = samples()
        if self.batches is not None:
            count = self.batches[self.global_rank] * BATCH_SIZE
            return DataLoader(torch.utils.data.Subset(dataset, range(count)), BATCH_SIZE)
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        return ResumableDataLoader(
            dataset, BATCH_SIZE, shuffle=True, rank=rank, world_size=world_size
        )

    def val_dataloader(self):
        return DataLoader(samples(), batch_size=32)


def powered_blockwise(named_parameters, total_steps):
    """GradPower on BlockwiseAdamW, with the schedule of the blocks."""
    optimizer = gradpower(BlockwiseAdamW, 1.2)(
        named_parameters, lr=1e-3, patterns={r"network\.0": "ffn", r"network\.\d": "head"}
    )
    return optimizer, BlockwiseSchedule(optimizer, total_steps, warmup=0.1, floor=1e-5)


class KillAll(Callback):
    """Kills all agents at the same step, as a power failure would."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class Watch(Callback):
    """Records the weights at several hooks, by name, and after each batch."""

    def __init__(self):
        self.weights = {"batches": []}

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.weights["batches"].append(flat(pl_module))

    def on_train_start(self, trainer, pl_module):
        self.weights["start"] = flat(pl_module)

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.weights["validation"] = flat(pl_module)


def flat(module):
    state = module.network.state_dict().values()
    parts = [whole(value).reshape(-1).double() for value in state]
    return torch.cat(parts).clone()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start_trainers(num_agents, folder, cases):
    return start_agents(train_cases, num_agents, folder, free_port(), str(folder), cases)


def run_trainers(num_agents, folder, cases, timeout_seconds=90):
    return results_of(start_trainers(num_agents, folder, cases), folder, timeout_seconds)


def train_cases(agent, num_agents, port, folder, cases):
    os.environ |= {
        "LOCAL_RANK": str(agent),
        "NODE_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    warnings.simplefilter("ignore")
    results = {}
    for name, case in cases.items():
        try:
            results[name] = train(agent, num_agents, Path(folder) / name, **case)
        except Exception as error:
            if not case.get("may_fail"):
                raise
            results[name] = {"error": f"{type(error).__name__}: {error}"}
    return results


def train(
    agent,
    num_agents,
    folder,
    *,
    strategy=None,
    communication=None,
    trainer=None,
    module=None,
    callbacks=(),
    checkpoint=None,
    ckpt_path=None,
    may_fail=False,
    without_store=False,
    seed=1,
    global_seed=None,
):
    if without_store:
        del os.environ["LIGHTNING_PLUGINS_STORE"]
    os.environ.pop("PL_GLOBAL_SEED", None)
    if global_seed is not None:
        os.environ["PL_GLOBAL_SEED"] = str(global_seed)  # as seed_everything leaves it
    if strategy == "ddp":
        chosen = DDPStrategy(process_group_backend="gloo")
    elif strategy == "auto":
        chosen = "auto"
    else:
        chosen = DecentralizedStrategy(**{"timeout_seconds": 20, **(strategy or {})})
        if communication is not None:
            chosen.communication = communication
    module = Classifier(**(module or {}))
    watch = Watch()
    torch.manual_seed(seed)
    made = [one() if isinstance(one, partial) else one for one in callbacks]
    callbacks = [watch, ExactResume(), *made]
    if checkpoint is not None:
        callbacks.append(ModelCheckpoint(dirpath=folder, **checkpoint))
    run = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=num_agents,
        strategy=chosen,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=checkpoint is not None,
        callbacks=callbacks,
        **{"max_epochs": 2, "num_sanity_val_steps": 0, **(trainer or {})},
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.fit(module, ckpt_path=ckpt_path)
    momenta = [
        whole(state["momentum_buffer"]).reshape(-1)
        for state in run.optimizers[0].state_dict()["state"].values()
        if state.get("momentum_buffer") is not None
    ]
    return {
        "weights": flat(module),
        "watched": watch.weights,
        "momentum": torch.cat(momenta) if momenta else None,
        "lr": run.optimizers[0].param_groups[0]["lr"],
        "global_step": run.global_step,
        "seen": module.seen,
        "validated": module.validated,
        "metrics": {name: float(value) for name, value in run.callback_metrics.items()},
        "warnings": [str(warning.message) for warning in caught],
        "ledger": chosen.ledger.state_dict() if isinstance(chosen, DecentralizedStrategy) else None,
    }
