"""Label-skewed shares of a dataset for the agents of decentralized training."""

import math
from typing import Any, Literal, get_args

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from lightning_plugins._lightning_compat.processes import data_share
from lightning_plugins.checkpoints import CheckedLoading
from lightning_plugins.datamodules.resumable import ResumableDataLoader

Mode = Literal["resample", "fixed", "disjoint"]


class DirichletPartition:
    """Gives every agent the same number of samples, with its own class frequencies.

    Agent k draws class frequencies p_k ~ Dir(alpha, ..., alpha) over the classes in the dataset and
    then ``samples_per_agent`` samples:

    - ``resample``: the class counts are multinomial with probabilities p_k, and new samples are
      drawn in every epoch. A sample repeats within an epoch only after its class is exhausted.
    - ``fixed``: the first epoch's draw of ``resample``, kept for the whole run.
    - ``disjoint``: no sample occurs in two shares, or twice in one. The agents take one sample each
      in round-robin order, from a class drawn from p_k among the classes with remaining samples.

    Every draw is a function of (seed, rank, epoch), for ``disjoint`` of (seed, world size), and
    does not change the global generators. Equal sizes give all agents the same number of steps.

    Source: ``resample`` and ``fixed`` as in the released code of Zhu et al., arXiv 2507.06542;
    ``disjoint`` is the equal-size split customary in federated learning, as in the code of Acar
    et al., Federated Learning Based on Dynamic Regularization, arXiv 2111.04263.

    Args:
        alpha: Concentration, above 0; small values are skewed, large values nearly uniform.
        samples_per_agent: Samples per agent and epoch.
        mode: ``resample``, ``fixed`` or ``disjoint``.
        seed: Seed of all draws.

    Raises:
        ValueError: An argument is outside its range.
    """

    def __init__(
        self, alpha: float, samples_per_agent: int, mode: Mode = "resample", seed: int = 0
    ) -> None:
        if not (alpha > 0 and math.isfinite(alpha)):
            raise ValueError(f"alpha={alpha}: expected a finite number above 0")
        if samples_per_agent < 1:
            raise ValueError(f"samples_per_agent={samples_per_agent}: expected at least 1")
        if mode not in get_args(Mode):
            raise ValueError(f"mode={mode!r}: expected one of {', '.join(get_args(Mode))}")
        if seed < 0:
            raise ValueError(f"seed={seed}: expected at least 0")
        self.alpha = alpha
        self.samples_per_agent = samples_per_agent
        self.mode = mode
        self.seed = seed

    def class_distribution(self, num_classes: int, rank: int) -> Tensor:
        """Return the class frequencies ``(num_classes,)`` of one agent, float64, with sum 1."""
        generator = np.random.default_rng([self.seed, rank, 0])
        return torch.from_numpy(generator.dirichlet(np.full(num_classes, self.alpha)))

    def indices(self, labels: Tensor, rank: int, world_size: int, epoch: int = 0) -> Tensor:
        """Return the samples of one agent in one epoch.

        Args:
            labels: Class numbers ``(num_samples,)`` of the whole dataset.
            rank: Number of the agent, from 0 to ``world_size - 1``.
            world_size: Number of agents.
            epoch: Number of the epoch; only the mode ``resample`` uses it.

        Returns:
            Indices ``(samples_per_agent,)`` into ``labels``, int64.

        Raises:
            ValueError: The dataset has too few samples, or the rank is outside its range.
        """
        if not 0 <= rank < world_size:
            raise ValueError(f"rank={rank}: expected 0 <= rank < world_size={world_size}")
        needed = self.samples_per_agent * (world_size if self.mode == "disjoint" else 1)
        if len(labels) < needed:
            agents = f" for each of {world_size} agents" if self.mode == "disjoint" else ""
            raise ValueError(
                f"samples_per_agent={self.samples_per_agent}: mode {self.mode!r}{agents} "
                f"requires {needed} samples, the dataset has {len(labels)}"
            )
        classes, class_of_sample = np.unique(labels.numpy(), return_inverse=True)
        members = [np.flatnonzero(class_of_sample == c) for c in range(len(classes))]
        if self.mode == "disjoint":
            chosen = self._disjoint(members, world_size)[rank]
        else:
            chosen = self._drawn(members, rank, epoch if self.mode == "resample" else 0)
        return torch.from_numpy(chosen)

    def _drawn(self, members: list[np.ndarray], rank: int, epoch: int) -> np.ndarray:
        frequencies = self.class_distribution(len(members), rank).numpy()
        generator = np.random.default_rng([self.seed, rank, 1, epoch])
        counts = generator.multinomial(self.samples_per_agent, frequencies)
        return np.concatenate(
            [_take(of_class, n, generator) for of_class, n in zip(members, counts, strict=True)]
        )

    def _disjoint(self, members: list[np.ndarray], world_size: int) -> np.ndarray:
        """Return indices ``(world_size, samples_per_agent)``."""
        generator = np.random.default_rng([self.seed, world_size, 2])
        pools = [generator.permutation(of_class) for of_class in members]
        left = np.array([len(pool) for pool in pools])
        frequencies = [self.class_distribution(len(pools), k).numpy() for k in range(world_size)]
        cumulative = [_cumulative(p, left) for p in frequencies]
        chosen = np.empty((world_size, self.samples_per_agent), dtype=np.int64)
        for turn, draws in enumerate(generator.random((self.samples_per_agent, world_size))):
            for agent, draw in enumerate(draws):
                c = int(np.searchsorted(cumulative[agent], draw, side="right"))
                left[c] -= 1
                chosen[agent, turn] = pools[c][left[c]]
                if left[c] == 0:
                    cumulative = [_cumulative(p, left) for p in frequencies]
        return chosen


class PartitionedDataset(Dataset):
    """One agent's share of a dataset, which can change with the epoch.

    ``ResumableDataLoader`` calls :meth:`set_epoch` before the first batch of an epoch.

    Args:
        dataset: Map-style dataset, shared by all agents.
        labels: Class numbers ``(num_samples,)`` of ``dataset``.
        partition: Selects the samples of each agent.
        rank: Number of this agent, from 0 to ``world_size - 1``.
        world_size: Number of agents.

    Raises:
        ValueError: The dataset has too few samples for the partition.
    """

    def __init__(
        self,
        dataset: Dataset,
        labels: Tensor,
        partition: DirichletPartition,
        rank: int,
        world_size: int,
    ) -> None:
        self.dataset = dataset
        self.labels = labels
        self.partition = partition
        self.rank = rank
        self.world_size = world_size
        self.indices = partition.indices(labels, rank, world_size, epoch=0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the samples of ``epoch`` if the partition changes with the epoch."""
        if self.partition.mode == "resample":
            self.indices = self.partition.indices(self.labels, self.rank, self.world_size, epoch)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Any:
        return self.dataset[int(self.indices[position])]


class PartitionedDataModule(CheckedLoading, LightningDataModule):
    """Loaders of a labelled dataset, with an optional label-skewed share for each rank.

    Subclasses assign the attributes below in ``setup``.

    Args:
        batch_size: Samples per batch on each rank.
        seed: Seed of the training order and the augmentation.
        num_workers: Processes that prefetch batches.
        partition: Gives each rank a label-skewed share of its own; None splits every epoch over the
            ranks.

    Attributes:
        train_dataset: Training samples.
        partition_labels: Class numbers ``(num_samples,)`` of the training samples for
            ``partition``.
        val_dataset: Validation samples; None if there are none.
        test_dataset: Test samples; None if there are none.

    Raises:
        ValueError: An argument is outside its range.
    """

    train_dataset: Dataset
    partition_labels: Tensor
    val_dataset: Dataset | None
    test_dataset: Dataset | None

    def __init__(
        self, batch_size: int, seed: int, num_workers: int, partition: DirichletPartition | None
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: expected at least 1")
        for name, value in {"seed": seed, "num_workers": num_workers}.items():
            if value < 0:
                raise ValueError(f"{name}={value}: expected at least 0")
        self.batch_size = batch_size
        self.seed = seed
        self.num_workers = num_workers
        self.partition = partition

    def train_dataloader(self) -> ResumableDataLoader:
        """Return a loader of shuffled, augmented training batches."""
        dataset, seed = self.train_dataset, self.seed
        share: dict[str, Any] = {}
        if self.partition is not None:
            trainer = self.trainer
            rank, world_size = data_share(trainer)
            dataset = PartitionedDataset(
                dataset, self.partition_labels, self.partition, rank, world_size
            )
            # The share belongs to one agent and is not split again; the seeds of agents differ.
            seed = int(np.random.SeedSequence([seed, rank]).generate_state(1)[0])
            share = {"rank": 0, "world_size": 1}
        return ResumableDataLoader.for_trainer(
            self.trainer,
            dataset,
            self.batch_size,
            seed=seed,
            num_workers=self.num_workers,
            **share,
        )

    def val_dataloader(self) -> DataLoader | list:
        """Return a loader of the validation part in order; an empty list if there is none."""
        return [] if self.val_dataset is None else self._in_order(self.val_dataset)

    def test_dataloader(self) -> DataLoader:
        """Return a loader of the test part in order.

        Raises:
            ValueError: There is no test part.
        """
        if self.test_dataset is None:
            raise ValueError(f"{type(self).__name__} has no test part")
        return self._in_order(self.test_dataset)

    def predict_dataloader(self) -> DataLoader:
        """Return a loader of the test part in order."""
        return self.test_dataloader()

    def _in_order(self, dataset: Dataset) -> DataLoader:
        # Lightning splits a sequential loader over the ranks, but keeps a DistributedSampler. With
        # a partition the ranks are agents with different models: each evaluates all samples.
        every_sample: DistributedSampler | None = None
        if self.partition is not None:
            every_sample = DistributedSampler(dataset, num_replicas=1, rank=0, shuffle=False)
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=every_sample,
            num_workers=self.num_workers,
            # A separate generator: validation must not advance the global stream of training.
            generator=torch.Generator(),
        )


def stratified_order(labels: Tensor) -> np.ndarray:
    """Return a fixed order of all samples whose every section has the same class proportions.

    Splitting the order gives stratified parts of exact sizes. It depends only on ``labels``,
    ``(num_samples,)``, and is therefore the same in every run.
    """
    # NumPy guarantees the streams of RandomState (NEP 19), but not those of default_rng.
    shuffled = np.random.RandomState(0).permutation(len(labels))
    position = np.empty(len(labels))
    of_shuffled = labels.numpy()[shuffled]
    for c in np.unique(of_shuffled):
        places = np.flatnonzero(of_shuffled == c)
        position[places] = (np.arange(len(places)) + 0.5) / len(places)
    return shuffled[np.argsort(position, kind="stable")]


def _take(of_class: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Draw ``count`` members; the counts of any two members differ by at most one."""
    rounds = -(-count // len(of_class))
    if rounds == 0:
        return of_class[:0]
    return np.concatenate([generator.permutation(of_class) for _ in range(rounds)])[:count]


def _cumulative(frequencies: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Return cumulative frequencies over the classes with remaining samples."""
    weights = np.where(left > 0, frequencies, 0.0)
    if weights.sum() <= 0:
        # All of the agent's classes are exhausted: it draws from the remaining samples.
        weights = left.astype(float)
    cumulative = np.cumsum(weights)
    # The last entries are exactly 1, so a draw below 1 never passes the last weighted class.
    return cumulative / cumulative[-1] if cumulative[-1] > 0 else cumulative
