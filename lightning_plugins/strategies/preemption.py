"""Ending a run together when a scheduler terminates it."""

import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_plugins._import_names import of_root
from lightning_plugins._lightning_compat.loops import callbacks_of, steps_the_optimizer
from lightning_plugins.strategies.peers import Peers

EXIT_CODE = 128 + signal.SIGTERM
_PATIENCE_SECONDS = 10.0
_POLL_SECONDS = 1.0


class Preemption(Callback):
    """Ends all agents after the same step when their processes receive SIGTERM.

    SLURM and Kubernetes send SIGTERM before they end a job. The agents agree on the latest step
    that one of them has reached, train up to it, save ``preempted.ckpt`` in the folder of the first
    ``ModelCheckpoint``, and exit with code 143, so the run does not look finished. The checkpoint
    holds the mean of the agents' weights, and the run resumes from it exactly. If an agent does not
    respond within 10 seconds, the others exit with the same code without a new checkpoint.

    With ``on_peer_failure="drop"`` an agent that is terminated alone leaves, and the others
    continue.

    Args:
        peers: The connection to the other agents.
        num_optimizers: Number of optimizers; ``global_step`` counts the steps of each.
        at_once: End this process without a common step and a checkpoint.
    """

    def __init__(self, peers: Peers, num_optimizers: int, at_once: bool = False) -> None:
        self.peers = peers
        self.at_once = at_once
        self.num_optimizers = max(1, num_optimizers)
        self._is_requested = False
        self._posted = False
        self._stop_at: int | None = None
        self._last_poll = 0.0
        self._trainer: Trainer | None = None
        self._previous: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the signal from the Trainer, which would end each agent at another step."""
        self._trainer = trainer
        self.peers.while_waiting = self._while_waiting
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._handle)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End the run if all agents have reached the agreed step."""
        self._poll()
        if self.peers.inside is not None:
            # The processes of an agent stop after the same step.
            requested = self.peers.any_in_agent(torch.tensor([int(self._is_requested)]))
            self._is_requested = bool(requested)
        if not self._is_requested or not steps_the_optimizer(trainer):
            return
        steps = trainer.global_step // self.num_optimizers
        if self._stop_at is None:
            self._stop_at = self._agreed_step_of_processes(steps)
            if self._stop_at is None:
                rank_zero_warn(
                    f"SIGTERM: other agents did not respond within {_PATIENCE_SECONDS:g} s, so no "
                    "checkpoint is saved; resume from the last one"
                )
                raise of_root(trainer, "utilities.exceptions.SIGTERMException")(EXIT_CODE)
        if steps >= self._stop_at:
            self._save(trainer)
            raise of_root(trainer, "utilities.exceptions.SIGTERMException")(EXIT_CODE)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Return the signal to the Trainer."""
        self._release()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Return the signal to the Trainer."""
        self._release()

    def _release(self) -> None:
        self.peers.while_waiting = None
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
        self._previous = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._is_requested and self._trainer is not None:
            launcher: Any = self._trainer.strategy.launcher
            if launcher is not None:
                launcher.kill(number)  # the processes that this one has started
        self._is_requested = True
        if self.at_once and self._trainer is not None:
            raise of_root(self._trainer, "utilities.exceptions.SIGTERMException")(EXIT_CODE)

    def _poll(self) -> None:
        """Follow another agent's request, unless the others continue without it."""
        now = time.monotonic()
        store = self.peers.store
        if self._is_requested or self.peers.can_drop or store is None:
            return
        if now > self._last_poll + _POLL_SECONDS:
            self._last_poll = now
            self._is_requested = store.check(["preempted"])

    def _while_waiting(self) -> None:
        self._poll()
        if self._is_requested:
            # This agent waits within a step, which the others must complete with it.
            self._post(self.peers.steps)

    def _post(self, steps: int) -> None:
        if self._posted or self.peers.store is None:
            return
        self._posted = True
        self.peers.store.set(f"preempted/{self.peers.agent}", str(steps))
        self.peers.store.set("preempted", "1")

    def _agreed_step_of_processes(self, steps: int) -> int | None:
        inside = self.peers.inside
        if inside is None:
            return self._agreed_step(steps)
        # One process asks the other agents: the places of an agent have separate stores.
        agreed = self._agreed_step(steps) if inside.is_first else None
        return inside.broadcast_object(agreed, 0)

    def _agreed_step(self, steps: int) -> int | None:
        store = self.peers.store
        if store is None:
            return steps
        self._post(steps)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            keys = [f"preempted/{agent}" for agent in self.peers.agents]
            if all(store.check([key]) for key in keys):
                return max(int(store.get(key)) for key in keys)
            time.sleep(0.05)
        return None

    def _save(self, trainer: Trainer) -> None:
        folders = (getattr(c, "dirpath", None) for c in trainer.checkpoint_callbacks)
        folder = next((folder for folder in folders if folder is not None), None)
        if folder is None:
            rank_zero_warn("SIGTERM: the run has no ModelCheckpoint, so nothing is saved")
            return
        path = Path(folder) / "preempted.ckpt"
        trainer.save_checkpoint(path)
        rank_zero_info(f"SIGTERM: all agents stopped after step {self._stop_at}; saved {path}")


def add_preemption(
    trainer: Trainer, peers: Peers, num_optimizers: int, at_once: bool = False
) -> None:
    """Let the run end together on SIGTERM; before the callbacks that save checkpoints."""
    own = [c for c in callbacks_of(trainer) if not isinstance(c, Preemption)]
    trainer.callbacks = [Preemption(peers, num_optimizers, at_once), *own]  # type: ignore[attr-defined]
