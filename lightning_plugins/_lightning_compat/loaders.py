"""The training loaders of a Trainer and the position in them.

- ``FitLoop._load_combined_loader_states``: resumes loaders created before the restore.
- ``FitLoop._combined_loader``, ``_BatchProgress.current``: the place in the epoch after a change of
  the batch size or of the number of processes.
- ``FitLoop.on_advance_start``, ``_combined_loader``, ``_data_fetcher``,
  ``reset_restart_stage``, ``_TrainingEpochLoop.on_run_start``, ``CombinedLoader._iterator``,
  ``_DataFetcher._start_profiler``, ``_set_sampler_epoch``, ``_ModeIterator.iterables``,
  ``DataLoader._iterator`` and its ``_shutdown_workers``: repeat the iterators of a resumed epoch.
- ``FitLoop.restarted_on_epoch_end``, ``_TrainingEpochLoop.restarting``, ``val_loop``,
  ``_should_check_val_fx``: the place in the loops at which a run resumes.
- ``FitLoop._data_source``: creates a loader again.
- ``_update_dataloader``: rebuilds a data loader with another sampler.
- ``AcceleratorConnector.use_distributed_sampler``: leaves samplers to the strategy.
"""

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, Sampler


def load_pending_loader_states(trainer: Trainer) -> None:
    """Load the pending states of the resumed checkpoint into the data loaders.

    Lightning loads them when it creates the loaders, but not if the loaders were created before the
    checkpoint was read. Reading ``trainer.estimated_stepping_batches`` in ``configure_optimizers``,
    as most schedules do, creates them that early (Lightning #20550).
    """
    loop = trainer.fit_loop
    type(loop)._load_combined_loader_states(loop)  # not a wrapper of it


class EpochIterators:
    """Calls a run's observer whenever an iterator over the training batches is made or continued.

    Args:
        trainer: The Trainer, before its loaders exist.
        before_loader: Called after new loaders are created and before their first iterator.
        before_epoch: Called at the start of each epoch, before hooks and before its iterator.
        before_iterator: Called before an epoch may make a new iterator.
        after_iterator: Called with whether it did, before the first batch is fetched.
    """

    def __init__(
        self,
        trainer: Trainer,
        before_loader: Callable[[], None],
        before_epoch: Callable[[], None],
        before_iterator: Callable[[], None],
        after_iterator: Callable[[bool], None],
    ) -> None:
        self._trainer = trainer
        loop: Any = trainer.fit_loop
        epoch_loop: Any = loop.epoch_loop
        self._starts_epoch = False

        def load_states() -> None:
            type(loop)._load_combined_loader_states(loop)
            before_loader()

        def on_advance_start() -> None:
            if self.resumed_after_last_batch():
                loop.reset_restart_stage()  # a new epoch: its hooks run, and it is counted
                self._starts_epoch = True
            elif loop.restarted_on_epoch_end:
                # A run with max_steps: Lightning would go on with the epoch that is over.
                loop.epoch_progress.increment_completed()
                loop._restarting = epoch_loop.restarting = False
                loop.reset_restart_stage()
                self._starts_epoch = True
            before_epoch()
            type(loop).on_advance_start(loop)

        def on_run_start(fetcher: Any) -> None:
            if self._starts_epoch:
                epoch_loop.restarting = self._starts_epoch = False
                epoch_loop.batch_progress.reset_on_run()
                epoch_loop.scheduler_progress.reset_on_run()
                epoch_loop.automatic_optimization.optim_progress.reset_on_run()
            before_iterator()
            before = self._iterator()
            type(epoch_loop).on_run_start(epoch_loop, fetcher)
            after_iterator(self._iterator() is not before)

        loop._load_combined_loader_states = load_states
        loop.on_advance_start = on_advance_start
        epoch_loop.on_run_start = on_run_start

    def remove(self) -> None:
        """Remove the observer; it can be called twice."""
        for name in ("_load_combined_loader_states", "on_advance_start"):
            self._trainer.fit_loop.__dict__.pop(name, None)
        self._trainer.fit_loop.epoch_loop.__dict__.pop("on_run_start", None)

    def loaders(self) -> list[Any]:
        """Return the training loaders."""
        combined = self._trainer.fit_loop._combined_loader
        return [] if combined is None else list(combined.flattened)

    def resumed_after_last_batch(self) -> bool:
        """Return whether the checkpoint was written between an epoch's last batch and its end.

        Lightning then goes on with the next epoch as if in its middle.
        """
        loop: Any = self._trainer.fit_loop
        return bool(
            loop.restarted_mid_epoch
            and loop.epoch_loop.restarted_on_train_batch_end
            and loop.epoch_loop.batch_progress.is_last_batch
        )

    def is_over(self) -> bool:
        """Return whether the epoch has no batches left, as at the end of a resumed epoch."""
        return self._trainer.fit_loop.epoch_loop.done

    def batches_taken(self) -> int:
        """Return the number of training steps that this epoch has begun."""
        return self._trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def batches_fetched(self) -> int:
        """Return the number of batches that this epoch has fetched.

        It differs from :meth:`batches_taken` if ``training_step`` fetches its own batches.
        """
        fetcher = self._fetcher()
        fetches_itself = hasattr(fetcher, "iterator_wrapper")
        return fetcher.fetched if fetches_itself else self.batches_taken()

    def restart(self) -> None:
        """Make a new iterator over the training batches."""
        iter(self._fetcher())

    def set_epoch(self) -> None:
        """Set the epoch of the samplers, as Lightning does at the start of an epoch."""
        from lightning.fabric.utilities.data import _set_sampler_epoch

        for loader in self.loaders():
            _set_sampler_epoch(loader, self._trainer.current_epoch)

    def have_workers(self) -> list[bool]:
        """Return which loaders have persistent workers from an earlier iterator."""
        return [getattr(loader, "_iterator", None) is not None for loader in self.loaders()]

    def stop_workers(self, keep: list[bool]) -> None:
        """Stop persistent workers, except of the loaders that are kept.

        A loader's first iterator draws a seed, which an iterator of the same workers does not.
        """
        for loader, is_kept in zip(self.loaders(), keep, strict=False):
            workers = getattr(loader, "_iterator", None)
            if workers is None or is_kept:
                continue
            if hasattr(workers, "_shutdown_workers"):
                workers._shutdown_workers()
                loader._iterator = None

    def loaded_in_epoch(self) -> float:
        """Return the epoch in which the loaders were created."""
        return self._trainer.fit_loop._last_train_dl_reload_epoch

    def were_loaded_in(self, epoch: float) -> bool:
        """Set the epoch of :meth:`loaded_in_epoch`; returns whether the loaders are older.

        They are not if ``reload_dataloaders_every_n_epochs`` creates them for this epoch.
        """
        every = self._trainer.reload_dataloaders_every_n_epochs  # type: ignore[attr-defined]
        if every and self._trainer.current_epoch - epoch >= every:
            return False
        self._trainer.fit_loop._last_train_dl_reload_epoch = epoch
        return True

    def before_cycle(self, act: Callable[[int], None]) -> None:
        """Call ``act(index)`` before a loader that is shorter than the epoch starts again."""
        iterator = self._iterator()
        if iterator is not None:
            iterables = [
                one.iterable if isinstance(one, _Cycled) else one for one in iterator.iterables
            ]
            iterator.iterables = [_Cycled(one, i, act) for i, one in enumerate(iterables)]

    def skip(self, batches: int) -> None:
        """Fetch and drop batches."""
        fetcher = self._fetcher()
        iterator = getattr(fetcher, "iterator_wrapper", fetcher)  # of a step that fetches itself
        for _ in range(batches):
            try:
                next(iterator)
            except StopIteration:
                return

    def run_missed_validation(self) -> None:
        """Run the validation that was due when the checkpoint within an epoch was written.

        Lightning counts it as done.
        """
        epoch_loop: Any = self._trainer.fit_loop.epoch_loop
        if not (
            epoch_loop.restarting
            and epoch_loop.restarted_on_train_batch_end
            and epoch_loop._should_check_val_fx(self._fetcher())
        ):
            return
        connector = self._trainer._logger_connector
        first_loop_iter = connector._first_loop_iter
        epoch_loop.val_loop.restarting = False
        self._trainer.validating = True
        epoch_loop.val_loop.run()
        self._trainer.training = True
        connector._first_loop_iter = first_loop_iter
        epoch_loop.restarting = False

    def before_first_fetch(self, act: Callable[[], None]) -> None:
        """Call ``act`` before the next batch is fetched."""
        fetcher = self._fetcher()
        before = fetcher._start_profiler

        def start() -> None:
            fetcher._start_profiler = before
            act()
            before()

        fetcher._start_profiler = start

    def _fetcher(self) -> Any:
        return self._trainer.fit_loop._data_fetcher

    def _iterator(self) -> Any:
        return getattr(self._trainer.fit_loop._combined_loader, "_iterator", None)


class _Cycled:
    """A training loader that reports each new iterator before it is made."""

    def __init__(self, iterable: Any, index: int, act: Callable[[int], None]) -> None:
        self.iterable = iterable
        self._index = index
        self._act = act

    def __iter__(self) -> Any:
        self._act(self._index)
        return iter(self.iterable)

    def __len__(self) -> int:
        return len(self.iterable)


def count_resumed_batches(trainer: Trainer) -> None:
    """Convert the restored count of batches to the present batch size and number of processes.

    Call it in ``on_train_start``, after the states of the loaders were loaded. Loaders with a
    method ``take_resized_batches`` report the count, such as this package's
    ``ResumableDataLoader``.

    Raises:
        MisconfigurationException: There are several training loaders, which can be at different
            places.
    """
    combined = trainer.fit_loop._combined_loader
    loaders = [] if combined is None else combined.flattened
    counts = [
        loader.take_resized_batches()
        for loader in loaders
        if hasattr(loader, "take_resized_batches")
    ]
    if not any(count is not None for count in counts):
        return
    if len(loaders) > 1:
        raise MisconfigurationException(
            "the checkpoint was written with another batch size or number of processes, which "
            "several training loaders do not support: use the previous values"
        )
    current = trainer.fit_loop.epoch_loop.batch_progress.current
    change = counts[0] - current.ready
    for name in ("ready", "started", "processed", "completed"):
        setattr(current, name, getattr(current, name) + change)


def with_sampler(dataloader: DataLoader, sampler: Sampler) -> DataLoader:
    """Rebuild ``dataloader`` with another sampler; also supports user-defined loader classes."""
    from lightning.pytorch.utilities.data import _update_dataloader

    return _update_dataloader(dataloader, sampler)


def disable_sampler_replacement(trainer: Trainer) -> None:
    """Prevent the Trainer from replacing samplers, because the strategy distributes the samples."""
    trainer._accelerator_connector.use_distributed_sampler = False


def rebuilt_training_loader(trainer: Trainer, loader: Any) -> Any:
    """Create the training loader again, or return ``loader`` if no method creates it."""
    source = trainer.fit_loop._data_source
    return source.dataloader() if source.is_module() else loader
