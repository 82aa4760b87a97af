"""Ctrl-C and SIGTERM end a run after a complete step, with a checkpoint that resumes exactly."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_only

from lightning_plugins._lightning_compat.loops import request_stop, steps_the_optimizer
from lightning_plugins.cli.run_folders import INTERRUPTED

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_REPLICAS = ("DDPStrategy", "FSDPStrategy", "ModelParallelStrategy")


class Interruption(Callback):
    """Saves ``checkpoints/interrupted.ckpt`` when the process receives SIGINT or SIGTERM.

    Weights that are saved in the middle of a step do not resume exactly. The run therefore ends
    after the first optimizer step that neither ends an epoch nor precedes a validation, where a
    checkpoint is exact. A second signal ends the run at once, without a checkpoint. When training
    ends, the checkpoint is removed.

    Processes of DDP, FSDP and ModelParallelStrategy agree on the step. With other strategies of
    several processes, and under SLURM with automatic requeueing, Lightning handles the signals.

    The command line appends it to the callbacks of a Trainer that saves checkpoints. (It is no
    ``Checkpoint``, which would replace the Trainer's default ``ModelCheckpoint``.)

    Attributes:
        folder: The folder of the run.
        signal: The signal received, or None.
        saved: The checkpoint, once it is written.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.saved: Path | None = None
        self.folder = Path()
        self._waits = False
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace the signal handlers, Lightning's included."""
        self.folder = Path(trainer.log_dir or trainer.default_root_dir)
        if not _is_supported(trainer) or threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            self._previous[number] = signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            self._restore_handlers()
            raise KeyboardInterrupt
        self.signal = number
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        rank_zero_only(print)(
            f"\n{name}: saving a checkpoint after this step; {name} again stops at once",
            flush=True,
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop if a signal was received and this is an exact place."""
        wanted = self.signal is not None
        if trainer.world_size > 1 and self._previous:
            wanted = trainer.strategy.reduce_boolean_decision(wanted, all=False)
        if not wanted or self.saved is not None or not steps_the_optimizer(trainer):
            return
        epoch_loop = trainer.fit_loop.epoch_loop
        every = trainer.val_check_batch
        validates = isinstance(every, int) and (batch_idx + 1) % every == 0
        if (epoch_loop.batch_progress.is_last_batch or validates) and not self._waits:
            self._waits = True  # at most one step, for epochs of a single one
            return
        path = self.folder / "checkpoints" / INTERRUPTED
        trainer.save_checkpoint(path, weights_only=False)
        self.saved = path
        request_stop(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write the logged metrics, so that a killed run has those before its checkpoint."""
        for logger in trainer.loggers:
            logger.save()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the checkpoint of an earlier interruption: training is complete."""
        self._restore_handlers()
        if trainer.is_global_zero:
            (self.folder / "checkpoints" / INTERRUPTED).unlink(missing_ok=True)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Restore the signal handlers."""
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}


def report_interruption(interruption: Interruption) -> None:
    """Print how to continue the run."""
    saved = interruption.saved
    what = f"saved {saved}" if saved else "stopped without a new checkpoint"
    rank_zero_only(print)(
        f"{what}; continue with: lightning-plugins fit --resume {interruption.folder}", flush=True
    )


def _is_supported(trainer: Trainer) -> bool:
    environment = trainer._accelerator_connector.cluster_environment
    if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
        return False
    return trainer.world_size == 1 or type(trainer.strategy).__name__ in _REPLICAS
