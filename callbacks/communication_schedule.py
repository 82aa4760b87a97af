"""The schedule of communication in decentralized training."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_plugins._lightning_compat.loops import logs_at_this_step, optimizer_steps
from lightning_plugins.callbacks.plugin_callback import PluginCallback
from lightning_plugins.strategies.communication import Communication
from lightning_plugins.strategies.outer_optimizer import OuterNesterov
from lightning_plugins.strategies.schedule import Schedule
from lightning_plugins.strategies.topologies import Topology

torch.serialization.add_safe_globals([Schedule, OuterNesterov])


class CommunicationSchedule(PluginCallback):
    """Sets the optimizer steps after which agents gossip, and whether they merge at the end.

    Requires ``DecentralizedStrategy`` or ``SimulatedDecentralizedStrategy``. See
    :class:`lightning_plugins.strategies.schedule.Schedule` for the shapes. If the run has a known
    end, the final merge is part of the last optimizer step, before the last validation and the last
    checkpoint. If the run ends earlier, by early stopping or ``max_time``, agents merge at the end
    of training; ``last.ckpt`` is then rewritten, and ``merged.ckpt`` is saved in the same folder.

    Logs ``communication/megabytes_sent`` and ``communication/rounds`` of the first agent at the
    Trainer's logging steps; traffic of checkpoints and measurements is not included.

    Args:
        shape: ``constant``, ``linear``, ``cosine``, ``window`` or ``adaptive``.
        every_n_steps: Optimizer steps per round.
        rate: Share of rounds with gossip.
        end_rate: Share at the end of ``linear`` and ``cosine``, or outside the window.
        start: Start of the window, as a fraction of the run.
        width: Width of the window, as a fraction of the run.
        budget: Number of rounds with gossip in the run.
        threshold: Threshold of ``adaptive``: relative squared drift since the last gossip.
        window_topology: Topology within the window; None uses the strategy's. arXiv 2507.06542
            compares early and late windows of ``Complete``, with ``RandomPull(0.2)`` outside.
        final_merge: Replace the weights of all agents by their mean after the last step.
        outer_lr: Learning rate of DiLoCo's Nesterov step on the mean of all agents, with the
            topology ``Complete``; None uses the mean itself, which is local SGD.
        outer_momentum: Momentum of DiLoCo's Nesterov step.
        every: Time between meetings, such as ``30s``, ``5min`` or ``1h``, for agents of unequal
            speeds: see :class:`lightning_plugins.strategies.timed_rounds.TimedAgent`. The run ends
            when the first agent has taken ``max_steps``.

    Raises:
        ValueError: An argument is outside its range, the window or the budget does not fit the run,
            or the outer optimizer is used with a topology that does not average all agents.
        MisconfigurationException: The strategy has no agents, or the Trainer has two of these
            callbacks.

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
        every: str | None = None,
    ) -> None:
        self.schedule = Schedule(
            shape, every_n_steps, rate, end_rate, start, width, budget, threshold, every
        )
        self.window_topology = window_topology
        self.final_merge = final_merge
        self.outer = None if outer_lr is None else OuterNesterov(outer_lr, outer_momentum)

    def check(self, trainer: Trainer) -> None:
        """Refuse an unsupported Trainer before data is prepared."""
        strategy = trainer.strategy
        if not isinstance(getattr(strategy, "communication", None), Communication):
            raise MisconfigurationException(
                f"CommunicationSchedule requires agents, but {type(strategy).__name__} has none: "
                "set strategy='decentralized'"
            )
        own = [c for c in trainer.callbacks if isinstance(c, CommunicationSchedule)]  # type: ignore[attr-defined]
        if len(own) > 1:
            raise MisconfigurationException("two CommunicationSchedule callbacks: keep one")
        communication = self._communication(trainer)
        if trainer.max_steps > 0:
            communication.schedule.check(trainer.max_steps)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Set the schedule of the strategy."""
        if stage == "fit":
            self.check(trainer)
            trainer.strategy.communication = self._communication(trainer)  # type: ignore[attr-defined]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the bytes and rounds so far."""
        if logs_at_this_step(trainer):
            rounds, _, megabytes = _traffic(trainer)
            pl_module.log_dict(
                {
                    "communication/megabytes_sent": megabytes,
                    "communication/rounds": float(rounds),
                }
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Merge and save checkpoints if the run ended before the final merge."""
        strategy: Any = trainer.strategy
        if not self.final_merge or strategy.has_merged:
            return
        strategy.merge()
        callbacks: list[Any] = trainer.checkpoint_callbacks
        for callback in callbacks:
            if getattr(callback, "dirpath", None) is None:
                continue
            if callback.last_model_path:
                trainer.save_checkpoint(callback.last_model_path)
            trainer.save_checkpoint(Path(callback.dirpath) / "merged.ckpt")

    def planned_phases(self, trainer: Trainer) -> dict[str, tuple[float, float]]:
        """Return the window and the merge in steps, for the schedule of the command line."""
        total, schedule = optimizer_steps(trainer), self.schedule
        found: dict[str, tuple[float, float]] = {}
        if schedule.shape == "window":
            assert schedule.start is not None
            assert schedule.width is not None
            end = schedule.start + schedule.width
            found["gossip window"] = (schedule.start * total, end * total)
        if self.final_merge:
            found["merge"] = (total - 1, total)
        return found

    def run_summary(self, trainer: Trainer) -> str:
        """Return rounds and bytes, for the summary of the command line."""
        rounds, merges, megabytes = _traffic(trainer)
        return f"rounds of gossip: {rounds:,}; merges: {merges:,}; sent: {megabytes:.2f} MB"

    def _communication(self, trainer: Trainer) -> Communication:
        return dataclasses.replace(
            trainer.strategy.communication,  # type: ignore[attr-defined]
            schedule=self.schedule,
            window_topology=self.window_topology,
            final_merge=self.final_merge,
            outer=self.outer,
            rounds=None,
        )


def _traffic(trainer: Trainer) -> tuple[int, int, float]:
    """Return the rounds of gossip, the merges, and the megabytes that this agent has sent."""
    ledger: Any = trainer.strategy.ledger  # type: ignore[attr-defined]
    agent = getattr(trainer.strategy, "agent_number", trainer.global_rank)
    gossip, merge = (ledger.of(agent, kind) for kind in ("gossip", "merge"))
    return gossip.rounds, merge.rounds, (gossip.bytes_sent + merge.bytes_sent) / 1e6
