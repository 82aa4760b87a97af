"""Saves the states of random generators in checkpoints, so that a run resumes exactly."""

import sys
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from lightning_plugins._lightning_compat import count_resumed_batches, load_pending_loader_states
from lightning_plugins.nn.plain_gather import all_gather_plain
from lightning_plugins.nn.random_state import RandomState


class ExactResume(Callback):
    """Saves the states of Python's, NumPy's, torch's and CUDA's generators in each checkpoint.

    Lightning restores weights, optimizers, schedules and counters, but not the generators that
    draw dropout masks and noise. With this callback, and a data loader that resumes
    (:class:`lightning_plugins.datamodules.ResumableDataLoader`), an interrupted and resumed run
    produces the weights of the uninterrupted run, bit for bit on one process.

    The states of all ranks are saved. A checkpoint that is written while an exception is handled
    contains only the states of the rank that writes it, because the other ranks may no longer
    respond. A checkpoint that is written within a gradient-accumulation window lacks the
    accumulated gradients, and a warning reports this.

    Example::

        trainer = Trainer(callbacks=[ExactResume(), ModelCheckpoint(save_last=True)])
    """

    def __init__(self) -> None:
        self._trainer: Trainer | None = None
        self._to_restore: list[dict[str, Any] | None] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Store the Trainer, because ``state_dict`` does not receive it."""
        self._trainer = trainer

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the states before the first batch after resuming is fetched."""
        load_pending_loader_states(trainer)
        count_resumed_batches(trainer)
        if self._to_restore is None:
            return
        states, self._to_restore = self._to_restore, None
        own = states[trainer.global_rank] if trainer.global_rank < len(states) else None
        if own is not None:
            RandomState.from_plain(own).restore()
        else:
            rank_zero_warn(
                f"the checkpoint has no random states for rank {trainer.global_rank} of "
                f"{trainer.world_size}: this run will differ from the uninterrupted one"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all ranks as tensors and plain data."""
        trainer = self._trainer
        own = RandomState.capture(_cuda_devices(trainer)).to_plain()
        if trainer is None or trainer.world_size == 1:
            return {"random_states": [own]}
        # No collective while an exception is handled: the other ranks may be gone.
        if sys.exc_info()[0] is not None or not torch.distributed.is_initialized():
            states: list[dict[str, Any] | None] = [None] * trainer.world_size
            states[trainer.global_rank] = own
            return {"random_states": states}
        return {"random_states": all_gather_plain(own)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Store the states until training starts.

        Raises:
            ValueError: A state does not have the form of a random generator's.
        """
        states = state_dict["random_states"]
        for state in states:
            if state is not None:
                RandomState.from_plain(state)
        self._to_restore = states

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Warn if the checkpoint is written within an accumulation window."""
        window = trainer.accumulate_grad_batches
        progress = trainer.fit_loop.epoch_loop.batch_progress
        batches = progress.current.ready
        # A loader without a length only reports its last batch.
        ends_epoch = batches >= trainer.num_training_batches or progress.is_last_batch
        # Not `trainer.training`: it is False in the validation within an epoch, which saves too.
        is_fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if is_fitting and batches % window and not ends_epoch:
            rank_zero_warn(
                f"this checkpoint falls within a window of {window} accumulated batches: "
                "it does not contain the accumulated gradients, so resuming is not exact; save at "
                "optimizer steps or at the end of the epoch instead"
            )


def _cuda_devices(trainer: Trainer | None) -> tuple[int, ...]:
    if trainer is None or trainer.strategy.root_device.type != "cuda":
        return ()
    return (trainer.strategy.root_device.index,)
