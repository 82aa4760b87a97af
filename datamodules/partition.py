"""Label-skewed data for each agent of decentralized training."""

import math
from typing import Any, Literal, get_args

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from lightning_plugins.datamodules.resumable import ResumableDataLoader

Mode = Literal["resample", "fixed", "disjoint"]


class DirichletPartition:
    """Gives each agent equally many samples with class frequencies of its own.

    Agent k draws class frequencies p_k ~ Dir(alpha, ..., alpha) over the classes that occur and
    then ``samples_per_agent`` samples:

    - ``resample``: the numbers of samples by class are multinomial in p_k, and samples are drawn
      anew each epoch. A sample comes again within an epoch only when its class is used up.
    - ``fixed``: the first epoch's draw of ``resample``, kept for the whole run.
    - ``disjoint``: no sample is in two agents' shares, nor twice in one. Agents take one sample
      each in turn, of a class drawn from p_k among the classes that are left.

    Every draw is a function of (seed, rank, epoch), for ``disjoint`` of (seed, world size), and
    leaves the global generators alone. Equal sizes keep the agents at equal numbers of steps.

    Source: ``resample`` and ``fixed`` as in the released code of Zhu et al., arXiv 2507.06542;
    ``disjoint`` is the equal-size split customary in federated learning, as in the code of Acar
    et al., Federated Learning Based on Dynamic Regularization, arXiv 2111.04263.

    Args:
        alpha: concentration, above 0: small is skewed, large is near uniform.
        samples_per_agent: samples of each agent in an epoch.
        mode: how the samples are drawn.
        seed: of all draws.

    Raises:
        ValueError: an argument outside its range.
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
        """The class frequencies ``(num_classes,)`` of agent ``rank``, float64, summing to 1."""
        generator = np.random.default_rng([self.seed, rank, 0])
        return torch.from_numpy(generator.dirichlet(np.full(num_classes, self.alpha)))

    def indices(self, labels: Tensor, rank: int, world_size: int, epoch: int = 0) -> Tensor:
        """The samples of agent ``rank`` in ``epoch``.

        Args:
            labels: class numbers ``(num_samples,)`` of the whole dataset.
            rank: of the agent among ``world_size``.
            world_size: number of agents.
            epoch: read in mode ``resample`` only.

        Returns:
            Indices ``(samples_per_agent,)`` into ``labels``, int64.

        Raises:
            ValueError: fewer samples than the agents are to get, or a rank outside the world.
        """
        if not 0 <= rank < world_size:
            raise ValueError(f"rank={rank}: expected 0 <= rank < world_size={world_size}")
        needed = self.samples_per_agent * (world_size if self.mode == "disjoint" else 1)
        if len(labels) < needed:
            agents = f" for each of {world_size} agents" if self.mode == "disjoint" else ""
            raise ValueError(
                f"samples_per_agent={self.samples_per_agent}: mode {self.mode!r}{agents} needs "
                f"{needed} samples, the dataset has {len(labels)}"
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
        """Indices ``(world_size, samples_per_agent)``."""
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
    """One agent's share of a dataset; its samples follow the epoch.

    ``ResumableDataLoader`` calls :meth:`set_epoch` before an epoch's first batch.

    Args:
        dataset: map-style, shared by all agents.
        labels: class numbers ``(num_samples,)`` of ``dataset``.
        partition: which samples an agent gets.
        rank: of this agent among ``world_size``.
        world_size: number of agents.

    Raises:
        ValueError: the dataset has too few samples for the partition.
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
        """Draw the samples of ``epoch``, where the partition draws anew."""
        if self.partition.mode == "resample":
            self.indices = self.partition.indices(self.labels, self.rank, self.world_size, epoch)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Any:
        return self.dataset[int(self.indices[position])]


def training_loader(
    dataset: Dataset,
    labels: Tensor,
    *,
    partition: DirichletPartition | None,
    trainer: Trainer | None,
    batch_size: int,
    seed: int,
    num_workers: int,
) -> ResumableDataLoader:
    """A shuffled loader: of this rank's part of each epoch, or of this agent's own share.

    Args:
        dataset: map-style.
        labels: class numbers ``(num_samples,)`` by which ``partition`` divides.
        partition: gives each rank a share of its own; None splits every epoch over the ranks.
        trainer: tells rank and world size; None is one process.
        batch_size: samples a batch on each rank.
        seed: of order and augmentation.
        num_workers: processes that fetch batches ahead.
    """
    share: dict[str, Any] = {}
    if partition is not None:
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        dataset = PartitionedDataset(dataset, labels, partition, rank, world_size)
        # The share is the agent's alone, so it is not split again; agents differ by their seeds.
        seed = int(np.random.SeedSequence([seed, rank]).generate_state(1)[0])
        share = {"rank": 0, "world_size": 1}
    return ResumableDataLoader.for_trainer(
        trainer, dataset, batch_size, seed=seed, num_workers=num_workers, **share
    )


def evaluation_loader(
    dataset: Dataset,
    *,
    partition: DirichletPartition | None,
    batch_size: int,
    num_workers: int,
) -> DataLoader:
    """A loader in the dataset's order: Lightning splits it over the ranks, or whole for agents.

    With a ``partition`` the ranks are agents with models of their own, and each is evaluated on
    all samples.
    """
    # Lightning keeps a DistributedSampler that it finds, so this one stops it from splitting.
    whole: DistributedSampler | None = None
    if partition is not None:
        whole = DistributedSampler(dataset, num_replicas=1, rank=0, shuffle=False)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=whole,
        num_workers=num_workers,
        # An own generator: validation must not consume the global random stream of training.
        generator=torch.Generator(),
    )


def stratified_order(labels: Tensor) -> np.ndarray:
    """A fixed order of all samples in which every stretch has the classes in equal proportion.

    Cutting it into parts gives stratified parts of exact sizes, the same in every run: the order
    depends on nothing but ``labels``, ``(num_samples,)``.
    """
    # RandomState's streams are frozen by NumPy's policy (NEP 19), unlike default_rng's.
    shuffled = np.random.RandomState(0).permutation(len(labels))
    position = np.empty(len(labels))
    of_shuffled = labels.numpy()[shuffled]
    for c in np.unique(of_shuffled):
        places = np.flatnonzero(of_shuffled == c)
        position[places] = (np.arange(len(places)) + 0.5) / len(places)
    return shuffled[np.argsort(position, kind="stable")]


def _take(of_class: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """``count`` members at random, each as often as the others, within one."""
    rounds = -(-count // len(of_class))
    if rounds == 0:
        return of_class[:0]
    return np.concatenate([generator.permutation(of_class) for _ in range(rounds)])[:count]


def _cumulative(frequencies: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Cumulative frequencies over the classes that have samples left."""
    weights = np.where(left > 0, frequencies, 0.0)
    if weights.sum() <= 0:
        # All of the agent's own classes are used up: it takes of what is left, as it occurs.
        weights = left.astype(float)
    cumulative = np.cumsum(weights)
    # The last entries are exactly 1, so no draw below 1 goes past the last class with weight.
    return cumulative / cumulative[-1] if cumulative[-1] > 0 else cumulative
