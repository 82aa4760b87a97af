"""Agents that disagree, are slow, or are terminated, in two real processes with Trainers."""

import os
import signal
import time
import warnings

import torch
import torch.distributed as dist
from decentralized_models import DATA, Small
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset

from lightning_plugins.callbacks import CommunicationSchedule, ExactResume
from lightning_plugins.datamodules import ResumableDataLoader
from lightning_plugins.strategies import DecentralizedStrategy
from lightning_plugins.strategies.topologies import Complete, ExplicitMatrix, RandomMatching


class LogsMore(Small):
    """The second agent logs a value that the first does not."""

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.training_step(batch, batch_idx), sync_dist=True)
        if self.global_rank == 1:
            self.log("val/extra", 1.0, sync_dist=True)

    def val_dataloader(self):
        return DataLoader(DATA, 64)


class LogsOther(LogsMore):
    """Each agent logs as many values, but of different shapes."""

    def validation_step(self, batch, batch_idx):
        loss = self.training_step(batch, batch_idx)
        self.log("val/loss", loss.double() if self.global_rank else loss, sync_dist=True)


class Skips(Small):
    """The second agent skips a step of manual optimization."""

    automatic_optimization = False

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.optimizers().zero_grad()
        self.manual_backward(loss)
        if not (self.global_rank == 1 and batch_idx == 2):
            self.optimizers().step()


class Uneven(IterableDataset):
    def __iter__(self):
        return iter([DATA[i] for i in range(64 + 32 * int(os.environ["LOCAL_RANK"]))])


class Stops(Callback):
    """The second agent stops after its fourth step."""

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_rank == 1 and trainer.global_step == 4:
            trainer.should_stop = True


class Raises(Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_rank == 1 and trainer.global_step == 3:
            raise KeyError("raised by a test")


class Slow(Callback):
    """The second agent takes 60 ms longer for each step; records the first agent's duration."""

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 0:
            self.started = time.monotonic()
        if trainer.global_rank == 1:
            time.sleep(0.06)

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == 18:
            pl_module.found["seconds"] = time.monotonic() - self.started


class UsesTorchDistributed(Callback):
    """Calls torch.distributed as users do, on one agent only."""

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_rank == 1:
            dist.barrier()
            pl_module.found["world_size"] = dist.get_world_size()


class Terminate(Callback):
    """Sends SIGTERM to this process at a step, on some of the agents."""

    def __init__(self, step, agents):
        self.step, self.agents = step, agents

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step and trainer.global_rank in self.agents:
            os.kill(os.getpid(), signal.SIGTERM)
        # Slower than a second in all, so that the other agent notices.
        time.sleep(0.2 if trainer.global_step >= self.step else 0)


def record_samples(module):
    """Keep the samples that an agent trains on."""
    step = module.training_step

    def training_step(batch, batch_idx):
        module.found.setdefault("seen", []).extend(batch[0][:, 0].tolist())
        return step(batch, batch_idx)

    module.training_step = training_step


def resumable_loader(module):
    trainer = module.trainer
    share = {"rank": trainer.global_rank, "world_size": trainer.world_size}
    return ResumableDataLoader(DATA, 16, shuffle=True, **share)


def shuffled(module):
    return DataLoader(DATA, 16, shuffle=True)


class LogsReduced(Small):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss, sync_dist=True)
        return loss


class TenTimesSlower(Callback):
    """The second agent is ten times slower; records the agents just before and after the merge."""

    def on_train_batch_start(self, trainer, *_):
        time.sleep(0.05 if trainer.global_rank else 0.005)

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.strategy.has_merged:
            agent = trainer.strategy.agent
            before = [agent.before_merge[name] for name, _ in pl_module.named_parameters()]
            pl_module.found |= {
                "before": torch.cat([part.reshape(-1) for part in before]),
                "masses": list(agent.masses.values()),
                "meetings": trainer.strategy.ledger.of(agent.peers.agent, "gossip").rounds,
            }

    def on_train_end(self, trainer, pl_module):
        path = f"{trainer.default_root_dir}/timed.ckpt"
        trainer.save_checkpoint(path)
        saved = torch.load(path, weights_only=True)["state_dict"]
        pl_module.found["saved"] = torch.cat([part.reshape(-1) for part in saved.values()])


EVERY, RARELY = {"every_n_steps": 1}, {"every_n_steps": 20}


def cases(folder):
    resumable = {"loader": resumable_loader, "schedule": {"every_n_steps": 3}}
    last = {"dirpath": f"{folder}/preempted", "save_top_k": 0}
    return {
        "logs more": {"module": LogsMore, "trainer": {"max_epochs": 1, "max_steps": -1}},
        "logs other": {"module": LogsOther, "trainer": {"max_epochs": 1, "max_steps": -1}},
        "skips a step": {"module": Skips, "trainer": {"max_epochs": 1, "max_steps": -1}},
        "uneven data": {
            "loader": lambda module: DataLoader(Uneven(), 16),
            "trainer": {"max_epochs": 1, "max_steps": -1},
        },
        "stops": {"callbacks": [Stops()]},
        "raises": {"callbacks": [Raises()]},
        "slow": {"callbacks": [Slow()], "schedule": RARELY, "trainer": {"max_steps": 20}},
        "torch.distributed": {
            "callbacks": [UsesTorchDistributed()],
            "loader": lambda module: DataLoader(DATA, 16, sampler=DistributedSampler(DATA)),
            "record": True,
            "trainer": {"max_epochs": 1, "max_steps": -1},
        },
        "uninterrupted": {**resumable, "trainer": {"max_steps": 20}},
        "terminated": {
            **resumable,
            "trainer": {"max_steps": 20, "enable_checkpointing": True},
            "callbacks": [Terminate(5, [0]), ModelCheckpoint(**last)],
        },
        "resumed": {
            **resumable,
            "trainer": {"max_steps": 20},
            "ckpt_path": f"{folder}/preempted/preempted.ckpt",
        },
    }


TIMED_STEPS = 150


def timed_cases(folder):
    timed = {"schedule": {"every": "0.3s"}, "trainer": {"max_steps": TIMED_STEPS}}
    pairs = ExplicitMatrix([[0.7, 0.3], [0.3, 0.7]])  # not an average of all
    return {
        "by time": {**timed, "callbacks": [TenTimesSlower()], "topology": pairs},
        "by time, reduced": {**timed, "module": LogsReduced},
        "by time, terminated": {**timed, "callbacks": [Terminate(5, [0, 1])]},
    }


def run_cases(agent, num_agents, port, folder, names):
    os.environ |= {
        "LOCAL_RANK": str(agent),
        "NODE_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    warnings.simplefilter("ignore")
    found = cases(folder) | timed_cases(folder)
    return {name: run_case(agent, num_agents, folder, **found[name]) for name in names}


def run_case(
    agent,
    num_agents,
    folder,
    module=Small,
    loader=shuffled,
    callbacks=(),
    schedule=EVERY,
    trainer=None,
    record=False,
    ckpt_path=None,
    topology=None,
):
    torch.manual_seed(0)
    topology = topology or (RandomMatching() if num_agents == 2 else Complete())
    strategy = DecentralizedStrategy(topology, timeout_seconds=60)
    own = module()
    own.found = {}
    run = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=num_agents,
        strategy=strategy,
        callbacks=[CommunicationSchedule(**schedule), ExactResume(), *callbacks],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **{"max_steps": 10, "enable_checkpointing": False, **(trainer or {})},
    )
    own.train_dataloader = lambda: loader(own)
    if record:
        record_samples(own)
    started = time.monotonic()
    try:
        run.fit(own, ckpt_path=ckpt_path)
    except (Exception, SystemExit) as error:
        own.found["error"] = f"{type(error).__name__}: {error}"
        own.found["code"] = getattr(error, "code", None)
    return own.found | {
        "steps": run.global_step,
        "waited": time.monotonic() - started,
        "weights": torch.nn.utils.parameters_to_vector(own.parameters()).detach(),
    }
