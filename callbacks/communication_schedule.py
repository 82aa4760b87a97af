"""When agents of decentralized training communicate."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_plugins._lightning_compat import logs_at_this_step
from lightning_plugins.strategies.communication import Communication
from lightning_plugins.strategies.outer_optimizer import OuterNesterov
from lightning_plugins.strategies.schedule import Schedule
from lightning_plugins.strategies.topologies import Topology


class CommunicationSchedule(Callback):
    """Says after which optimizer steps agents gossip, and whether they merge at the end.

    For a Trainer with ``DecentralizedStrategy`` or ``SimulatedDecentralizedStrategy``. The shapes
    are those of :class:`lightning_plugins.strategies.schedule.Schedule`. Where the run's end is
    known, the final merge is part of the last optimizer step, so that the last validation and the
    last checkpoint see it. Where the run ends earlier, by early stopping or ``max_time``, it comes
    at the end of training: ``last.ckpt`` is then written again, and ``merged.ckpt`` beside it.

    Logs, at the steps at which the Trainer logs: ``communication/megabytes_sent`` and
    ``communication/rounds``, of the first agent, for training alone.

    Args:
        shape: ``constant``, ``linear``, ``cosine``, ``window`` or ``adaptive``.
        every_n_steps: optimizer steps a round.
        rate: share of rounds with gossip.
        end_rate: the share at the end of ``linear`` and ``cosine``, or outside of the window.
        start: where the window begins, as a fraction of the run.
        width: of the window, as a fraction of the run.
        budget: rounds with gossip in the whole run.
        threshold: of ``adaptive``: relative squared drift since the last gossip.
        window_topology: in the window; None is the strategy's. ``Complete`` there and
            ``RandomPull(0.2)`` outside is what arXiv 2507.06542 compares early and late.
        final_merge: all agents take the mean after the last step.
        outer_lr: of DiLoCo's Nesterov step on the mean of all agents, with the topology
            ``Complete``; None takes the mean itself, which is local SGD.
        outer_momentum: of that step.

    Raises:
        ValueError: an argument outside its range, a window outside the run, a budget that cannot be
            met, or an outer optimizer for a topology that does not average all.
        MisconfigurationException: another strategy, or two of these callbacks.

    Example::

        trainer = Trainer(
            accelerator="cpu", devices=4, strategy="decentralized",
            callbacks=[CommunicationSchedule(every_n_steps=100, rate=0.2)],
        )
    """

    def __init__(
        self,
        shape: Literal["constant", "linear", "cosine", "window", "adaptive"] = "constant",
        every_n_steps: int = 1,
        rate: float = 1.0,
        end_rate: float = 0.0,
        start: float | None = None,
        width: float | None = None,
        budget: int | None = None,
        threshold: float | None = None,
        window_topology: Topology | None = None,
        final_merge: bool = True,
        outer_lr: float | None = None,
        outer_momentum: float = 0.9,
    ) -> None:
        self.schedule = Schedule(
            shape, every_n_steps, rate, end_rate, start, width, budget, threshold
        )
        self.window_topology = window_topology
        self.final_merge = final_merge
        self.outer = None if outer_lr is None else OuterNesterov(outer_lr, outer_momentum)

    def check(self, trainer: Trainer) -> None:
        """Refuse a Trainer that this callback cannot work in, before anything is prepared."""
        strategy = trainer.strategy
        if not isinstance(getattr(strategy, "communication", None), Communication):
            raise MisconfigurationException(
                f"CommunicationSchedule needs agents, and {type(strategy).__name__} has none: set "
                "strategy='decentralized'"
            )
        own = [c for c in trainer.callbacks if isinstance(c, CommunicationSchedule)]  # type: ignore[attr-defined]
        if len(own) > 1:
            raise MisconfigurationException("two CommunicationSchedule callbacks: keep one")
        communication = self._communication(trainer)
        if trainer.max_steps > 0:
            communication.schedule.check(trainer.max_steps)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the strategy its schedule."""
        if stage == "fit":
            self.check(trainer)
            trainer.strategy.communication = self._communication(trainer)  # type: ignore[attr-defined]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log what communication has cost so far."""
        if logs_at_this_step(trainer):
            strategy: Any = trainer.strategy
            kinds = ("gossip", "merge")
            booked = [strategy.ledger.of(trainer.global_rank, kind) for kind in kinds]
            sent = sum(entry.bytes_sent for entry in booked)
            pl_module.log_dict(
                {
                    "communication/megabytes_sent": sent / 1e6,
                    "communication/rounds": float(booked[0].rounds),
                }
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Merge, where the run ended before its known end, and save what came of it."""
        strategy: Any = trainer.strategy
        if not self.final_merge or strategy.has_merged:
            return
        strategy.merge()
        for callback in trainer.checkpoint_callbacks:
            if not isinstance(callback, ModelCheckpoint) or callback.dirpath is None:
                continue
            if callback.last_model_path:
                trainer.save_checkpoint(callback.last_model_path)
            trainer.save_checkpoint(Path(callback.dirpath) / "merged.ckpt")

    def _communication(self, trainer: Trainer) -> Communication:
        return dataclasses.replace(
            trainer.strategy.communication,  # type: ignore[attr-defined]
            schedule=self.schedule,
            window_topology=self.window_topology,
            final_merge=self.final_merge,
            outer=self.outer,
        )
