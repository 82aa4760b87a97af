"""Agents of two processes each, one of which fails in a chosen way at a chosen moment."""

import os
import signal
import threading
import time
from pathlib import Path

import torch
from decentralized_agents import _CONTEXT, _HARNESS
from decentralized_trainers import Classifier, flat, free_port
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_plugins.strategies import DecentralizedStrategy
from lightning_plugins.strategies.agent_checkpoints import AgentCheckpoints
from lightning_plugins.strategies.communication import Communication
from lightning_plugins.strategies.schedule import Schedule
from lightning_plugins.strategies.supervisor import Supervisor
from lightning_plugins.strategies.topologies import RandomMatching

KINDS = ("kill", "stop", "slow", "nan", "preempt")
MOMENTS = ("before", "gossip", "merge", "save")
VICTIM = 3  # the second process of the second agent
TIMEOUT_SECONDS = 4
STEPS = {"before": 3, "gossip": 4, "merge": 12, "save": 5}


class Fault(Callback):
    """Makes one process fail in the chosen step."""

    def __init__(self, kind, moment, folder):
        self.kind, self.moment, self.folder = kind, moment, folder
        self.is_done = False

    def on_train_start(self, trainer, pl_module):
        self.trainer = trainer
        if trainer.global_rank != VICTIM:
            return
        if self.moment in ("gossip", "merge"):
            peers, perform = trainer.strategy.peers, trainer.strategy.peers.perform

            def failing(operation, what="", *arguments):
                def fails_first(group):
                    self.fail(peers.steps)
                    return operation(group)

                return perform(fails_first, what, *arguments)

            peers.perform = failing
        if self.moment == "save":
            write = AgentCheckpoints.write

            def fails_before(*arguments):
                self.fail(trainer.global_step)
                write(*arguments)

            AgentCheckpoints.write = fails_before

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.moment == "before" and trainer.global_rank == VICTIM:
            self.fail(trainer.global_step)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        is_due = trainer.global_rank == VICTIM and trainer.global_step + 1 == STEPS[self.moment]
        if self.kind == "nan" and is_due:
            self.is_done = True
            with torch.no_grad():
                next(pl_module.parameters()).fill_(float("nan"))

    def fail(self, step):
        if self.is_done or step != STEPS[self.moment] or self.kind == "nan":
            return
        self.is_done = True
        Path(self.folder, "failed").touch()
        if self.kind in ("kill", "stop"):
            os.kill(os.getpid(), signal.SIGKILL if self.kind == "kill" else signal.SIGSTOP)
        time.sleep(1.5)


def train(rank, port, folder, kind, moment, inside):
    torch.set_num_threads(1)
    os.environ |= {
        **{"LIGHTNING_PLUGINS_STORE": port, "LOCAL_RANK": str(rank), "NODE_RANK": "0"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())},
    }
    strategy = DecentralizedStrategy(
        on_peer_failure="drop",
        timeout_seconds=TIMEOUT_SECONDS,
        processes_per_agent=2,
        inside=inside,
    )
    strategy.communication = Communication(RandomMatching(), Schedule(every_n_steps=4))
    module = Classifier(plain=True, sharded=inside == "fsdp")
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=4,
        strategy=strategy,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=2,
        num_sanity_val_steps=0,
        callbacks=[
            Fault(kind, moment, folder),
            ModelCheckpoint(dirpath=folder, save_last=True, every_n_train_steps=5),
        ],
    )
    trainer.fit(module)
    result = {
        "weights": flat(module),
        "global_step": trainer.global_step,
        "dropped": [lost["agent"] for lost in strategy.ledger.dropped],
    }
    torch.save(result, Path(folder) / f"{rank}.pt")


class _Process:
    """A process of the fork server, with the methods of a ``Popen``."""

    def __init__(self, process):
        self.process = process
        process.start()
        self.pid = process.pid
        self.kill, self.wait = process.kill, process.join

    def poll(self):
        return self.process.exitcode

    def send_signal(self, number):
        os.kill(self.pid, number)


class ForkedSupervisor(Supervisor):
    """A supervisor whose processes start from a fork server, which takes a second."""

    def __init__(self, folder, kind, moment, inside):
        super().__init__(["train"], 2, processes_per_agent=2)
        self.arguments = (str(folder), kind, moment, inside)
        self.kind, self.folder = kind, folder

    def _start(self, rank):
        if _HARNESS not in os.environ.get("PYTHONPATH", ""):
            os.environ["PYTHONPATH"] = f"{_HARNESS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        port = self._environment(rank)["LIGHTNING_PLUGINS_STORE"]
        return _Process(_CONTEXT.Process(target=train, args=(rank, port, *self.arguments)))

    def run(self):
        previous = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
        over = threading.Event()
        if self.kind == "preempt":
            threading.Thread(target=self._preempt, args=(over,), daemon=True).start()
        try:
            return super().run()
        finally:
            over.set()
            for number, handler in zip((signal.SIGTERM, signal.SIGINT), previous, strict=True):
                signal.signal(number, handler)

    def _preempt(self, over):
        while not over.wait(0.05):
            if Path(self.folder, "failed").exists():
                self._forward_signal(signal.SIGTERM, None)
                return
