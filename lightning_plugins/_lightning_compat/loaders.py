"""The training loaders of a Trainer and the position in them.

- ``FitLoop._load_combined_loader_states``: resumes loaders created before the restore.
- ``FitLoop._combined_loader``, ``_BatchProgress.current``: the place in the epoch after a change of
  the batch size or of the number of processes.
- ``FitLoop.on_advance_start``, ``_combined_loader``, ``_data_fetcher``,
  ``reset_restart_stage``, ``_TrainingEpochLoop.on_run_start``, ``CombinedLoader._iterator``,
  ``_DataFetcher._start_profiler``: repeat the iterator of a resumed epoch.
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

        def load_states() -> None:
            type(loop)._load_combined_loader_states(loop)
            before_loader()

        def on_advance_start() -> None:
            if self.resumed_after_last_batch():
                loop.reset_restart_stage()  # a new epoch: its hooks run, and it is counted
            before_epoch()
            type(loop).on_advance_start(loop)

        def on_run_start(fetcher: Any) -> None:
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
        """Return the number of batches that this epoch has fetched."""
        return self._trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def restart(self) -> None:
        """Make a new iterator over the training batches."""
        iter(self._fetcher())

    def skip(self, batches: int) -> int:
        """Fetch and drop batches; returns how many there were."""
        fetcher = self._fetcher()
        for taken in range(batches):
            try:
                next(fetcher)
            except StopIteration:
                return taken
        return batches

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
