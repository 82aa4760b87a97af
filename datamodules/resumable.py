"""A data loader whose order and augmentation are pure functions of (seed, epoch, rank, batch)."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from lightning_plugins.nn.random_state import seeded


class ResumableDataLoader:
    """A sized, map-style data loader that resumes exactly where a checkpoint was written.

    Each epoch visits a permutation drawn from (seed, epoch), split over the ranks. While a batch is
    fetched, the global random generators of Python, NumPy and torch are seeded from (seed, epoch,
    rank, batch) and put back afterwards, so random augmentation in ``dataset[i]`` gives the same
    picture whether or not the run was interrupted, and for every ``num_workers``.

    Lightning calls ``state_dict`` when it writes a checkpoint and ``load_state_dict`` when it
    resumes, and tells the epoch through ``sampler.set_epoch``. In a loop of your own, call
    ``set_epoch`` yourself, as with ``torch.utils.data.DistributedSampler``. If the dataset has a
    ``set_epoch`` method it is called before the epoch's first batch.

    It is not a ``torch.utils.data.DataLoader``: Lightning would replace its sampler. Nor does it
    show its dataset as ``dataset``: with ``overfit_batches`` Lightning would build it anew.

    Args:
        dataset: map-style, with ``__len__`` and ``__getitem__``.
        batch_size: samples a batch on each rank.
        shuffle: permute in each epoch; otherwise samples come in order.
        seed: of the permutation and of the per-batch generators.
        drop_last: leave out an incomplete last batch.
        num_workers: processes that fetch batches ahead; 0 fetches in this process.
        rank: of this process among ``world_size``.
        world_size: processes that share the dataset. Every rank gets equally many samples; the
            permutation is continued from its start to fill the last ones.
        collate_fn: makes a batch of a list of samples.
        pin_memory: copy batches to page-locked memory.

    Raises:
        ValueError: an argument outside its range, or fewer samples than one batch with
            ``drop_last``.
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
                f"batch_size={batch_size} with drop_last leaves no batch of "
                f"{len(dataset)} samples on {world_size} rank(s): "  # type: ignore[arg-type]
                "reduce batch_size or set drop_last=False"
            )
        self._loader = DataLoader(
            _SeededBatches(dataset, self.collate_fn),
            batch_size=None,
            sampler=self.sampler,
            num_workers=num_workers,
            pin_memory=pin_memory,
            # An own generator: creating the iterator must not consume the global random stream.
            generator=torch.Generator().manual_seed(seed),
        )
        self._batches_taken = 0

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
        """The loader of one process of a Trainer.

        With ``Trainer(overfit_batches=...)`` nothing is permuted, so that every epoch has the same
        batches.

        Args:
            trainer: tells rank and world size; None is one process.
            dataset: as of the class, and so is what follows.
        """
        if trainer is not None:
            share = {"rank": trainer.global_rank, "world_size": trainer.world_size}
            options = {**share, **options}
            shuffle = shuffle and not trainer.overfit_batches  # type: ignore[attr-defined]
        return cls(dataset, batch_size, shuffle=shuffle, **options)

    batch_sampler = None
    """Lightning asks for it to see whether a validation loader shuffles; there is none."""

    @property
    def batch_size(self) -> int:
        """Samples a batch on each rank."""
        return self.sampler.batch_size

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        # Lazily: Lightning makes the iterator before it tells the epoch.
        first = self.sampler.take_first_batch()
        if hasattr(self.indexed_dataset, "set_epoch"):
            self.indexed_dataset.set_epoch(self.sampler.epoch)
        self._batches_taken = first
        self.sampler.first_batch_of_iterator = first
        for batch in self._loader:
            self._batches_taken += 1
            yield batch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose permutation the next iteration visits."""
        self.sampler.set_epoch(epoch)

    def state_dict(self) -> dict[str, int]:
        """The epoch and how many of its batches were taken (the same on every rank)."""
        return {"epoch": self.sampler.epoch, "batches_taken": self._batches_taken}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue, in the stored epoch, after the batches that were taken."""
        self.sampler.set_epoch(state["epoch"])
        self.sampler.resume_at(state["epoch"], state["batches_taken"])
        self._batches_taken = state["batches_taken"]


class EpochBatches(Sampler):
    """Keys ``(batch_seed, indices)`` of one rank's batches in one epoch."""

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
        self._resume: tuple[int, int] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose permutation is visited."""
        self.epoch = epoch

    def resume_at(self, epoch: int, batch: int) -> None:
        """Let the next iteration start at ``batch``, if it is of ``epoch``."""
        self._resume = (epoch, batch)

    def take_first_batch(self) -> int:
        """The batch at which an iteration that begins now starts; forgets the resume point."""
        resume, self._resume = self._resume, None
        # A checkpoint of a finished epoch is resumed in the next one, from its first batch.
        if resume is None or resume[0] != self.epoch or resume[1] >= len(self):
            return 0
        return resume[1]

    def __len__(self) -> int:
        samples = -(-self.num_samples // self.world_size)
        return (
            math.floor(samples / self.batch_size)
            if self.drop_last
            else math.ceil(samples / self.batch_size)
        )

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        indices = self._indices_of_rank()
        for batch in range(self.first_batch_of_iterator, len(self)):
            start = batch * self.batch_size
            yield self._batch_seed(batch), indices[start : start + self.batch_size]

    def _indices_of_rank(self) -> list[int]:
        if self.shuffle:
            generator = torch.Generator().manual_seed(_mix(self.seed, self.epoch))
            order = torch.randperm(self.num_samples, generator=generator).tolist()
        else:
            order = list(range(self.num_samples))
        samples = -(-self.num_samples // self.world_size)
        positions = range(self.rank, samples * self.world_size, self.world_size)
        return [order[position % self.num_samples] for position in positions]

    def _batch_seed(self, batch: int) -> int:
        return _mix(self.seed, self.epoch, self.rank, batch)


class _SeededBatches(Dataset):
    """Fetches and collates a whole batch under generators that the key seeds."""

    def __init__(self, dataset: Dataset, collate_fn: Callable[[list[Any]], Any]) -> None:
        self._dataset = dataset
        self._collate_fn = collate_fn

    def __getitem__(self, key: tuple[int, list[int]]) -> Any:
        batch_seed, indices = key
        with seeded(batch_seed):
            return self._collate_fn([self._dataset[index] for index in indices])


def _mix(*numbers: int) -> int:
    """One 63-bit seed from several integers (splitmix64), so that neighbours are unrelated."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1
