"""Saves the states of generators and loaders in checkpoints, so that a run resumes exactly."""

import sys
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader, IterableDataset

from lightning_plugins._lightning_compat.loaders import (
    EpochIterators,
    count_resumed_batches,
    load_pending_loader_states,
)
from lightning_plugins.callbacks.loader_state import (
    beside_its_own,
    changed_numbers,
    continues_by_itself,
    has_state,
    held_by,
    restore_loader,
    state_of_loader,
)
from lightning_plugins.callbacks.plugin_callback import PluginCallback
from lightning_plugins.callbacks.unsaved_buffers import UnsavedBuffers
from lightning_plugins.nn.plain_gather import all_gather_plain
from lightning_plugins.nn.random_state import RandomState
from lightning_plugins.nn.shards import local


class ExactResume(PluginCallback):
    """Resumes a run with any map-style data loader as if it had not been interrupted.

    Lightning restores weights, optimizers, schedules and counters, but neither the generators that
    draw dropout masks, noise and the order of the samples, nor the position within an epoch. With
    this callback an interrupted and resumed run produces the weights of the uninterrupted run, bit
    for bit on one process, from checkpoints at any optimizer step and at the end of an epoch.

    Each checkpoint contains the states of Python's, NumPy's, torch's and CUDA's generators, now, at
    the start of the epoch, and where a shorter loader started again in it; the generators of the
    loader's samplers and data set, the numbers and lists that its samplers change, the state of a
    data set with ``state_dict``, and the buffers that the module leaves out of its own state but
    changes, such as memory banks.
    A resumed epoch makes its iterators as the interrupted one did, and fetches the batches that
    were already used once more, without training on them. Loaders with ``state_dict`` and
    ``load_state_dict`` (:class:`lightning_plugins.datamodules.ResumableDataLoader`,
    ``torchdata``'s ``StatefulDataLoader``) continue from their state instead. A validation that was
    due when a checkpoint within an epoch was written is run before the next batch.

    Not exact, with a warning that counts the samples: an iterable data set without a state, another
    batch size, another number of processes; with a warning: loaders of another class than torch's
    without a state; a checkpoint between the last batch of an epoch and its validation or schedule;
    and a module that changes its weights in ``on_train_start``, after they were restored. Not
    exact, without a warning: random data sets under ``persistent_workers``, and modules that change
    attributes which no checkpoint contains, such as plain tensors.

    The states of all ranks are saved. A checkpoint that is written while an exception is handled
    contains only the states of the rank that writes it, because the other ranks may no longer
    respond. A checkpoint that is written within a gradient-accumulation window lacks the
    accumulated gradients, and a warning reports this.

    Example::

        trainer = Trainer(callbacks=[ExactResume(), ModelCheckpoint(save_last=True)])
    """

    def __init__(self) -> None:
        self._trainer: Trainer | None = None
        self._iterators: EpochIterators | None = None
        self._to_restore: dict[str, Any] | None = None
        self._as_created: list[dict[str, Any]] = []
        self._epoch_start: dict[str, Any] | None = None
        self._last_epoch: dict[str, Any] | None = None
        self._buffers: UnsavedBuffers | None = None
        self._restored_norms: list[float] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Observe the iterators over the training batches, before the first one is made."""
        self._trainer = trainer
        if stage == "fit":
            self._release()
            self._epoch_start = self._last_epoch = None
            self._iterators = EpochIterators(
                trainer,
                self._loaders_created,
                self._restore_generators,
                self._begin_epoch,
                self._iterator_made,
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the states of this rank, before the first batch after resuming is fetched."""
        self._buffers = UnsavedBuffers(pl_module)
        load_pending_loader_states(trainer)
        count_resumed_batches(trainer)
        if self._to_restore is None:
            return
        if _of_rank(self._to_restore["random_states"], trainer) is None:
            rank_zero_warn(
                f"the checkpoint has no random states for rank {trainer.global_rank} of "
                f"{trainer.world_size}: this run will differ from the uninterrupted one"
            )
        self._restored_norms = _norms(pl_module)
        self._buffers.restore(_of_rank(self._to_restore.get("buffers", []), trainer) or {})
        self._restore_generators()
        if self._iterators is None or not self._iterators.resumed_after_last_batch():
            return
        by_epoch = any(one.interval == "epoch" for one in trainer.lr_scheduler_configs)
        if by_epoch or _validates_after_last_epoch(trainer):
            rank_zero_warn(
                "resuming is not exact: the checkpoint was written between the last batch of an "
                "epoch and its end, and Lightning does not run the validation and the schedules of "
                "that end; resume from a checkpoint of the epoch's end or of another step"
            )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Warn if the module has replaced the restored weights in its own hooks."""
        if self._restored_norms is None:
            return
        before, self._restored_norms = self._restored_norms, None
        if before != _norms(pl_module):
            rank_zero_warn(
                f"resuming is not exact: {type(pl_module).__name__} changes its weights after they "
                "were restored, for example initializes them in on_train_start; skip that in a "
                "resumed run, in which self.trainer.ckpt_path is set"
            )

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Stop observing."""
        self._release()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop observing; a checkpoint of the finished run still has the state of its loaders."""
        if stage == "fit":
            self._last_epoch = self._epoch()
        self._release()
        self._buffers = None

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all ranks as tensors and plain data."""
        trainer = self._trainer
        buffers = self._buffers.changed() if self._buffers is not None else {}
        own = {"random_states": self._capture(), "epochs": self._epoch(), "buffers": buffers}
        if trainer is None or trainer.world_size == 1:
            return {name: [value] for name, value in own.items()}
        of_ranks: list[Any] = [None] * trainer.world_size
        # No collective while an exception is handled: the other ranks may be gone.
        # Agents of decentralized training have a process group each and write a file each.
        is_alone = (
            not torch.distributed.is_initialized()
            or torch.distributed.get_world_size() != trainer.world_size
        )
        if sys.exc_info()[0] is not None or is_alone:
            of_ranks[trainer.global_rank] = own
        else:
            of_ranks = all_gather_plain(own)
        return {name: [state and state[name] for state in of_ranks] for name in own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Store the states until training starts.

        Raises:
            ValueError: A state does not have the form of a random generator's.
        """
        states = list(state_dict["random_states"])
        for epoch in filter(None, state_dict.get("epochs", [])):
            states += [epoch["before_iterator"], epoch.get("before_fetch")]
            states += [state for _, state in epoch.get("cycles", {}).values()]
        for state in filter(None, states):
            RandomState.from_plain(state)
        self._to_restore = state_dict

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

    def _capture(self) -> dict[str, Any]:
        return RandomState.capture(_cuda_devices(self._trainer)).to_plain()

    def _epoch(self) -> dict[str, Any] | None:
        """Return the start of the current epoch, and the position in it."""
        if self._iterators is None or self._epoch_start is None or self._trainer is None:
            return self._last_epoch
        return {
            **self._epoch_start,
            "cycles": dict(self._epoch_start["cycles"]),
            "batches": self._iterators.batches_fetched(),
            "loaded_in_epoch": self._iterators.loaded_in_epoch(),
            "loaders_now": self._loader_states(),
            "batch_sizes": [_batch_size(loader) for loader in self._iterators.loaders()],
            "world_size": self._trainer.world_size,
        }

    def _loader_states(self) -> list[dict[str, Any]]:
        assert self._iterators is not None
        states = [state_of_loader(loader) for loader in self._iterators.loaders()]
        return list(map(changed_numbers, self._as_created, states))

    def _restore_loaders(
        self,
        states: list[dict[str, Any]],
        only: set[int] | None = None,
        part: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    ) -> None:
        assert self._iterators is not None
        for loader, state, created in zip(
            self._iterators.loaders(), states, self._as_created, strict=False
        ):
            # Numbers that are not saved had not changed, and may have since.
            numbers = {**created["numbers"], **state["numbers"]}
            restore_loader(loader, part({**state, "numbers": numbers}), only)

    def _restore_held(self, iterators: EpochIterators, states: list[dict[str, Any]]) -> None:
        """Restore what loaders that are created again get from the DataModule or the module.

        Lightning makes an iterator when it creates loaders, and another one at the epoch's start.
        """
        trainer: Any = self._trainer
        held = held_by(filter(None, (trainer.datamodule, trainer.lightning_module)))
        new, now = list(map(state_of_loader, iterators.loaders())), self._capture()
        self._restore_loaders(states, held)
        iterators.restart()
        after = list(map(state_of_loader, iterators.loaders()))
        self._restore_loaders(new)
        self._restore_loaders(after, held)
        RandomState.from_plain(now).restore()

    def _loaders_created(self) -> None:
        assert self._iterators is not None
        self._as_created = [state_of_loader(loader) for loader in self._iterators.loaders()]
        self._begin_epoch()
        self._epoch_start = self._beginning

    def _begin_epoch(self) -> None:
        assert self._iterators is not None
        self._beginning = {
            "before_iterator": self._capture(),
            "loaders": self._loader_states(),
            "have_workers": self._iterators.have_workers(),
            "cycles": {},
        }

    def _iterator_made(self, is_new: bool) -> None:
        """Continue the interrupted epoch, or note the states at the start of this one."""
        iterators = self._iterators
        assert iterators is not None
        if is_new:
            self._epoch_start = self._beginning
        if self._to_restore is not None:
            if iterators.is_over():  # Lightning finishes an epoch whose last batch is done
                return
            self._resume_epoch(iterators)
            iterators.run_missed_validation()
        if self._epoch_start is not None:
            iterators.before_cycle(self._note_cycle)
            if "before_fetch" not in self._epoch_start:
                iterators.before_first_fetch(self._note_first_fetch)

    def _note_cycle(self, index: int) -> None:
        """Note the states with which a loader that is shorter than the epoch starts again."""
        assert self._epoch_start is not None
        cycles = self._epoch_start["cycles"]
        cycles[index] = (cycles.get(index, (0, None))[0] + 1, self._capture())

    def _note_first_fetch(self) -> None:
        assert self._epoch_start is not None
        self._epoch_start["before_fetch"] = self._capture()

    def _resume_epoch(self, iterators: EpochIterators) -> None:
        assert self._to_restore is not None
        assert self._trainer is not None
        state, self._to_restore = self._to_restore, None
        epoch = _of_rank(state.get("epochs", []), self._trainer)
        loaders = iterators.loaders()
        is_new_epoch = not iterators.batches_taken()
        restored = continues_by_itself if is_new_epoch else has_state  # by Lightning
        if epoch is None:
            return
        if all(map(restored, loaders)):
            if not is_new_epoch:
                self._restore_loaders(epoch["loaders_now"], part=beside_its_own)
            return
        _warn_of_unknown_order(loaders, epoch["batches"])
        if is_new_epoch:
            if iterators.were_loaded_in(epoch["loaded_in_epoch"]):
                self._restore_loaders(epoch["loaders_now"])
            else:
                self._restore_held(iterators, epoch["loaders_now"])
            iterators.set_epoch()
            self._begin_epoch()
            self._epoch_start = self._beginning
            iterators.restart()
            return
        iterators.were_loaded_in(epoch["loaded_in_epoch"])
        if not _warns_that_it_differs(loaders, epoch, iterators.batches_taken(), self._trainer):
            now = self._capture()
            RandomState.from_plain(epoch["before_iterator"]).restore()
            self._restore_loaders(epoch["loaders"])
            iterators.stop_workers(keep=epoch["have_workers"])
            iterators.restart()
            iterators.set_epoch()
            iterators.before_cycle(_Cycles(epoch["cycles"]).repeat)
            RandomState.from_plain(epoch["before_fetch"]).restore()
            iterators.skip(epoch["batches"])
            RandomState.from_plain(now).restore()
            kept = ("before_iterator", "loaders", "have_workers", "cycles", "before_fetch")
            self._epoch_start = {name: epoch[name] for name in kept}

    def _restore_generators(self) -> None:
        """Restore the generators of this rank, as long as no batch was fetched since resuming."""
        if self._to_restore is not None and self._trainer is not None:
            own = _of_rank(self._to_restore["random_states"], self._trainer)
            if own is not None:
                RandomState.from_plain(own).restore()

    def _release(self) -> None:
        if self._iterators is not None:
            self._iterators.remove()
            self._iterators = None


class _Cycles:
    """Repeats the restarts of loaders that are shorter than the epoch.

    Only the last restart of a loader matters: what it fetched before is skipped.
    """

    def __init__(self, cycles: dict[int, tuple[int, Any]]) -> None:
        self._last = cycles
        self._counts: dict[int, int] = dict.fromkeys(cycles, 0)

    def repeat(self, index: int) -> None:
        """Restore the states in which the loader started for the last time."""
        if index not in self._last:
            return
        count, state = self._last[index]
        self._counts[index] += 1
        if self._counts[index] == count:
            RandomState.from_plain(state).restore()


def _validates_after_last_epoch(trainer: Trainer) -> bool:
    """Return whether a validation was due at the end of the epoch before the current one."""
    every = trainer.check_val_every_n_epoch
    return trainer.enable_validation and (every is None or trainer.current_epoch % every == 0)


def _of_rank(states: list[Any], trainer: Trainer) -> Any:
    return states[trainer.global_rank] if trainer.global_rank < len(states) else None


def _batch_size(loader: Any) -> int | None:
    size = getattr(loader, "batch_size", None)
    size = getattr(getattr(loader, "batch_sampler", None), "batch_size", None) or size
    return size if isinstance(size, int) else None


def _warns_that_it_differs(
    loaders: list[Any], epoch: dict[str, Any], batches: int, trainer: Trainer
) -> bool:
    """Warn if the position in the epoch cannot be found again, with the number of samples."""
    sizes = [_batch_size(loader) for loader in loaders]
    before = epoch["batch_sizes"]
    samples = batches * (before[0] if before and before[0] else 1) * epoch["world_size"]
    unit = "samples" if before and before[0] else "batches"
    problem = None
    datasets = [getattr(loader, "dataset", None) for loader in loaders]
    if any(isinstance(one, IterableDataset) and not has_state(one) for one in datasets):
        problem = (
            "the training data set is iterable and has no state_dict, nor does its loader, so the "
            f"epoch starts with its first sample again: {samples} {unit} are repeated, and as many "
            "at the end of the epoch are skipped"
        )
    elif any(map(has_state, loaders)):
        problem = (
            "only some of the training loaders have a state_dict, so the others start again: "
            f"{samples} of their {unit} are repeated"
        )
    elif sizes != before or trainer.world_size != epoch["world_size"]:
        problem = (
            f"the batch size or the number of processes changed (batch sizes {before} -> {sizes}, "
            f"processes {epoch['world_size']} -> {trainer.world_size}), so the epoch starts with "
            f"its first sample again: {samples} {unit} are repeated; keep both within an epoch"
        )
    if problem is not None:
        rank_zero_warn(f"resuming is not exact: {problem}")
    return problem is not None


def _warn_of_unknown_order(loaders: list[Any], batches: int) -> None:
    for loader in loaders:
        is_known = isinstance(loader, DataLoader) or hasattr(loader, "dataset")
        if not (is_known or hasattr(loader, "__getitem__") or has_state(loader)):
            rank_zero_warn(
                f"resuming may not be exact: the training loader is a {type(loader).__name__} "
                f"without a state_dict, so it starts from its beginning, and {batches} batches "
                "are fetched again without training; they are others if it goes on with a stream "
                "of earlier epochs or its order depends on more than random generators: give it "
                "state_dict and load_state_dict"
            )


def _norms(module: LightningModule) -> list[float]:
    """Return the norm of each parameter, or of its shard."""
    found = [local(p.detach()) for p in module.parameters() if not is_lazy(p) and p.numel()]
    return torch.stack([x.float().norm().cpu() for x in found]).tolist() if found else []


def _cuda_devices(trainer: Trainer | None) -> tuple[int, ...]:
    if trainer is None or trainer.strategy.root_device.type != "cuda":
        return ()
    return (trainer.strategy.root_device.index,)
