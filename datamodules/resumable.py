"""A data loader with order and augmentation determined by (seed, epoch, rank, batch) alone."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from lightning_plugins._lightning_compat.processes import data_share
from lightning_plugins.datamodules.keyed_permutation import KeyedPermutation, mixed_seed
from lightning_plugins.inputs import quoted
from lightning_plugins.nn.random_state import seeded

# Larger permutations are computed place by place, smaller ones are a table of 8 MB.
_LARGEST_TABLE = 2**20
_BLOCK = 8192


class ResumableDataLoader:
    """A sized, map-style data loader that resumes exactly from a checkpoint.

    The place in an epoch is stored in samples, so a run may resume with another batch size, factor
    of accumulation or number of processes: the epoch continues with the samples that were not
    visited yet. ``CausalLM`` and ``ExactResume`` then convert Lightning's count of batches; without
    one of them such a change is refused.

    Each epoch visits a permutation drawn from (seed, epoch), split over the ranks; its memory does
    not grow with the dataset. While a batch is
    fetched, the global random generators of Python, NumPy and torch are seeded from (seed, epoch,
    rank, batch); afterwards their states are restored. Random augmentation in ``dataset[i]``
    therefore returns the same sample in an interrupted and in an uninterrupted run, and for every
    ``num_workers``. A dataset without randomness can have a method ``batch(indices)`` that returns
    a whole batch; it is used if ``collate_fn`` is the default.

    Lightning calls ``state_dict`` when it writes a checkpoint, ``load_state_dict`` when it resumes,
    and ``sampler.set_epoch`` before every epoch. In a custom loop, call ``set_epoch`` yourself, as
    with ``torch.utils.data.DistributedSampler``. If the dataset has a ``set_epoch`` method, the
    loader calls it before the first batch of an epoch.

    The class is not a ``torch.utils.data.DataLoader``, because Lightning would replace its sampler.
    It has no attribute ``dataset``, because Lightning would rebuild the loader with
    ``overfit_batches``.

    Args:
        dataset: Map-style dataset with ``__len__`` and ``__getitem__``.
        batch_size: Samples per batch on each rank.
        shuffle: Permute the samples in each epoch; otherwise keep their order.
        seed: Seed of the permutation and of the generators for each batch.
        drop_last: Omit an incomplete last batch.
        num_workers: Processes that prefetch batches; 0 loads in this process.
        rank: Number of this process, from 0 to ``world_size - 1``.
        world_size: Processes that share the dataset. Every rank gets the same number of samples; if
            needed, the permutation is repeated from its start.
        collate_fn: Combines a list of samples into a batch.
        pin_memory: Copy batches to page-locked memory.

    Raises:
        ValueError: An argument is outside its range, or ``drop_last`` leaves no batch.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
    ) -> None:
        self.indexed_dataset = dataset
        self.collate_fn = collate_fn or default_collate
        self.sampler = EpochBatches(
            num_samples=len(dataset),  # type: ignore[arg-type]
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            rank=rank,
            world_size=world_size,
        )
        if len(self.sampler) == 0:
            raise ValueError(
                f"batch_size={batch_size} with drop_last=True leaves no batch of "
                f"{len(dataset)} samples on {world_size} rank(s): "  # type: ignore[arg-type]
                "reduce batch_size or set drop_last=False"
            )
        self._loader = DataLoader(
            _SeededBatches(dataset, self.collate_fn),
            batch_size=None,
            sampler=self.sampler,
            num_workers=num_workers,
            pin_memory=pin_memory,
            # A separate generator: creating the iterator must not advance the global stream.
            generator=torch.Generator().manual_seed(seed),
        )
        self._batches_taken = 0
        self._batches_counted: int | None = None

    @classmethod
    def for_trainer(
        cls,
        trainer: Trainer | None,
        dataset: Dataset,
        batch_size: int,
        *,
        shuffle: bool = True,
        **options: Any,
    ) -> "ResumableDataLoader":
        """Build the loader for one process of a Trainer.

        ``Trainer(overfit_batches=...)`` disables the permutation, so that every epoch has the same
        batches.

        Args:
            trainer: Provides rank and world size; None means a single process.
            dataset: Map-style dataset.
            batch_size: Samples per batch on each rank.
            shuffle: Permute the samples in each epoch.
            **options: Further arguments of the class.
        """
        if trainer is not None:
            rank, world_size = data_share(trainer)
            share = {"rank": rank, "world_size": world_size}
            options = {**share, **options}
            shuffle = shuffle and not trainer.overfit_batches  # type: ignore[attr-defined]
        return cls(dataset, batch_size, shuffle=shuffle, **options)

    batch_sampler = None
    """Lightning reads this attribute to check whether a validation loader shuffles."""

    @property
    def batch_size(self) -> int:
        """Samples per batch on each rank."""
        return self.sampler.batch_size

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        # A generator, because Lightning creates the iterator before it sets the epoch.
        if self._batches_counted is not None and self.sampler.resumes_in_epoch:
            raise ValueError(
                f"the checkpoint was written with another batch size or number of processes than "
                f"batch_size={self.batch_size} and world_size={self.sampler.world_size}: add the "
                "callback ExactResume(), which continues the epoch with the remaining samples, or "
                "use the previous values"
            )
        first = self.sampler.take_first_batch()
        if hasattr(self.indexed_dataset, "set_epoch"):
            self.indexed_dataset.set_epoch(self.sampler.epoch)
        self._batches_taken = first
        self.sampler.first_batch_of_iterator = first
        for batch in self._loader:
            self._batches_taken += 1
            yield batch

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iteration visits."""
        self.sampler.set_epoch(epoch)

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and the number of its batches and samples already returned.

        The state is equal on all ranks, and the samples are those of all ranks.
        """
        samples = self.sampler.samples_before(self._batches_taken)
        size = self.batch_size * self.sampler.world_size
        taken = {"batches_taken": self._batches_taken, "samples_taken": samples}
        return {"epoch": self.sampler.epoch, **taken, "samples_per_batch": size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue in the stored epoch after the samples that were already returned.

        Raises:
            ValueError: A number of the state is missing, negative or not whole.
        """
        size = self.batch_size * self.sampler.world_size
        # Checkpoints of older releases contain only the epoch and its batches.
        taken = state.get("batches_taken")
        samples = state.get("samples_taken", taken * size if isinstance(taken, int) else 0)
        stored_size = state.get("samples_per_batch", size)
        numbers = {"epoch": state.get("epoch"), "batches_taken": taken}
        numbers |= {"samples_taken": samples, "samples_per_batch": stored_size}
        for name, value in numbers.items():
            if not (isinstance(value, int) and 0 <= value < 2**63):
                raise ValueError(
                    f"the checkpoint's state of the data loader has {name}={quoted(value)}: "
                    "expected a whole number, 0 or more"
                )
        self.sampler.set_epoch(state["epoch"])
        self._batches_taken = self.sampler.resume_at(state["epoch"], samples)
        self._batches_counted = taken if stored_size != size else None

    def take_resized_batches(self) -> int | None:
        """Return how many batches of the present size precede the resume point.

        Returns:
            The number, once, for the code that converts a count of batches; None if the batches
            have the same size as in the checkpoint.
        """
        counted, self._batches_counted = self._batches_counted, None
        return None if counted is None else self._batches_taken


class EpochBatches(Sampler):
    """Samples the keys ``(batch_seed, indices)`` of one rank's batches in one epoch."""

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        shuffle: bool,
        seed: int,
        drop_last: bool,
        rank: int,
        world_size: int,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: expected at least 1")
        if num_samples < 1:
            raise ValueError("dataset is empty: expected at least one sample")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank={rank}: expected 0 <= rank < world_size={world_size}")
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.first_batch_of_iterator = 0
        self._resume: int | None = None
        # Batches are counted backwards from the end of the epoch, so that after a change of their
        # size the count still ends at len(self): an anchor is (batch, samples before it).
        self._anchor_epoch, self._anchor = 0, (0, 0)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch."""
        self.epoch = epoch

    def resume_at(self, epoch: int, samples: int) -> int:
        """Start the next iteration after ``samples`` of all ranks if it visits ``epoch``.

        Returns:
            The number of batches before this place.
        """
        batch = len(self) - self._num_batches(max(self.num_samples - samples, 0))
        self._anchor_epoch, self._anchor = epoch, (batch, samples)
        self._resume = epoch
        return batch

    @property
    def resumes_in_epoch(self) -> bool:
        """Whether the next iteration starts within its epoch."""
        # The checkpoint of a finished epoch resumes at the first batch of the next epoch.
        return self._resume == self.epoch and 0 <= self._anchor[0] < len(self)

    def samples_before(self, batch: int) -> int:
        """Return the number of samples of all ranks before a batch of the current epoch."""
        first, samples = self._anchor if self._anchor_epoch == self.epoch else (0, 0)
        return samples + (batch - first) * self.batch_size * self.world_size

    def _num_batches(self, samples: int) -> int:
        of_rank = -(-samples // self.world_size)
        return (of_rank if self.drop_last else of_rank + self.batch_size - 1) // self.batch_size

    def take_first_batch(self) -> int:
        """Return the first batch of a new iteration and clear the resume point."""
        resumes, self._resume = self.resumes_in_epoch, None
        if not resumes:
            self._anchor = (0, 0)
        return self._anchor[0]

    def __len__(self) -> int:
        return self._num_batches(self.num_samples)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        first = self.first_batch_of_iterator
        before = self.samples_before(first)
        of_rank = -(-(self.num_samples - before) // self.world_size)
        order = self._order()
        # Several batches at a time, because a call of NumPy costs as much as many elements.
        per_block = max(1, _BLOCK // self.batch_size)
        for start in range(first, len(self), per_block):
            end = min(start + per_block, len(self))
            places = np.arange(
                (start - first) * self.batch_size, min((end - first) * self.batch_size, of_rank)
            )
            indices = order((before + self.rank + places * self.world_size) % self.num_samples)
            for batch in range(start, end):
                place = (batch - start) * self.batch_size
                yield self._batch_seed(batch), indices[place : place + self.batch_size].tolist()

    def _order(self) -> Callable[[np.ndarray], np.ndarray]:
        """Return the samples of the epoch at given places."""
        if not self.shuffle:
            return lambda places: places
        key = mixed_seed(self.seed, self.epoch)
        if self.num_samples > _LARGEST_TABLE:
            return KeyedPermutation(self.num_samples, key)
        generator = torch.Generator().manual_seed(key)
        return torch.randperm(self.num_samples, generator=generator).numpy().__getitem__

    def _batch_seed(self, batch: int) -> int:
        return mixed_seed(self.seed, self.epoch, self.rank, batch)


class _SeededBatches(Dataset):
    """Fetches and collates a whole batch with the generators seeded from its key."""

    def __init__(self, dataset: Dataset, collate_fn: Callable[[list[Any]], Any]) -> None:
        self._dataset = dataset
        self._collate_fn = collate_fn
        is_default = collate_fn is default_collate
        self._whole_batch = getattr(dataset, "batch", None) if is_default else None

    def __getitem__(self, key: tuple[int, list[int]]) -> Any:
        batch_seed, indices = key
        if self._whole_batch is not None:
            return self._whole_batch(indices)
        with seeded(batch_seed):
            return self._collate_fn([self._dataset[index] for index in indices])
