"""Training data of the agents: dividing a dataset among them and joining their loaders."""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
)

from lightning_plugins._lightning_compat import with_sampler


@runtime_checkable
class Partition(Protocol):
    """Assigns samples to agents, as ``lightning_plugins.datamodules.DirichletPartition`` does."""

    def indices(self, labels: Tensor, rank: int, world_size: int, epoch: int = 0) -> Tensor:
        """Return indices into ``labels`` of the samples of agent ``rank`` in ``epoch``."""
        ...


Data = Literal["iid", "user"] | Partition

_ENDED = object()


def agent_dataloader(loader: Any, data: Data, agent: int, num_agents: int, seed: int) -> Any:
    """Create the training loader of ``agent`` from a loader over all samples.

    Loaders that are already divided are returned unchanged: those with a ``DistributedSampler``,
    those over an iterable dataset, and those that are not a ``torch.utils.data.DataLoader``, such
    as this package's ``ResumableDataLoader``, which receives rank and world size from its
    DataModule. Any other loader must visit every sample exactly once, because the agent's sampler
    replaces its sampler.

    Args:
        loader: The return value of ``train_dataloader``.
        data: ``iid`` splits the samples evenly, ``user`` returns the loader unchanged, and a
            partition assigns samples by label.
        agent: Number of the agent, from 0.
        num_agents: Number of agents that share the samples.
        seed: Seed of the sample order.

    Raises:
        ValueError: The sampler selects or repeats samples, or ``data`` is a partition and the
            dataset has no labels that we can find.
    """
    if data == "user" or not isinstance(loader, DataLoader):
        return loader
    if isinstance(loader.dataset, IterableDataset) or _is_divided(loader):
        return loader
    order = _order_of(loader, data)
    sampler: Sampler
    if data == "iid":
        is_ordered = isinstance(order, SequentialSampler) or not getattr(order, "shuffle", True)
        sampler = DistributedSampler(
            loader.dataset, num_agents, agent, shuffle=not is_ordered, seed=seed
        )
    else:
        sampler = PartitionSampler(labels_of(loader.dataset), data, agent, num_agents, seed)
    return with_sampler(loader, sampler)


class PartitionSampler(Sampler[int]):
    """Yields one agent's samples of a partition, shuffled by (seed, agent, epoch).

    Args:
        labels: Class indices ``(num_samples,)`` of the whole dataset.
        partition: The assignment of samples to agents.
        agent: Number of the agent, from 0.
        num_agents: Number of agents that share the samples.
        seed: Seed of the sample order.
    """

    def __init__(
        self, labels: Tensor, partition: Partition, agent: int, num_agents: int, seed: int
    ) -> None:
        self.labels = labels
        self.partition = partition
        self.agent = agent
        self.num_agents = num_agents
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration; called by Lightning."""
        self._epoch = epoch
        self._indices = self.partition.indices(self.labels, self.agent, self.num_agents, epoch)

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[int]:
        mixed_seed = hash((self.seed, self.agent, self._epoch)) % 2**63
        generator = torch.Generator().manual_seed(mixed_seed)
        order = torch.randperm(len(self._indices), generator=generator)
        return iter(self._indices[order].tolist())


class AgentDataLoaders:
    """Iterates over the agents' loaders in parallel; a batch is a list with one batch per agent.

    Args:
        loaders: The agents' loaders, of equal length.

    Raises:
        ValueError: During iteration, if loaders without a known length end at different times.
    """

    batch_sampler = None
    """Read by Lightning, which calls ``set_epoch`` on ``sampler`` instead."""

    def __init__(self, loaders: Sequence[Any]) -> None:
        self.loaders = list(loaders)

    @property
    def sampler(self) -> "AgentDataLoaders":
        """The object on which Lightning calls :meth:`set_epoch`."""
        return self

    @property
    def batch_size(self) -> int | None:
        """Number of samples in one agent's batch."""
        return getattr(self.loaders[0], "batch_size", None)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of every agent's sampler."""
        for loader in self.loaders:
            inner = getattr(loader, "batch_sampler", None)
            for sampler in (getattr(loader, "sampler", None), getattr(inner, "sampler", None)):
                set_epoch = getattr(sampler, "set_epoch", None)
                if set_epoch is not None:
                    set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.loaders[0])

    def __iter__(self) -> Iterator[list[Any]]:
        iterators = [iter(loader) for loader in self.loaders]
        for number in count():
            batches = [next(iterator, _ENDED) for iterator in iterators]
            ended = [agent for agent, batch in enumerate(batches) if batch is _ENDED]
            if len(ended) == len(batches):
                return
            if ended:
                raise ValueError(
                    f"agents {ended} have {number} training batches per epoch and others have "
                    "more: set trainer.limit_train_batches to the smallest number"
                )
            yield batches

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each loader that has one."""
        return {
            "agents": [
                loader.state_dict() if hasattr(loader, "state_dict") else None
                for loader in self.loaders
            ]
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of each loader that has one."""
        for loader, own in zip(self.loaders, state["agents"], strict=True):
            if own is not None:
                loader.load_state_dict(own)


def labels_of(dataset: Dataset) -> Tensor:
    """Return the class indices ``(num_samples,)`` of a dataset.

    They are read from the attribute ``targets`` or ``labels``, or from the last of ``tensors``.

    Raises:
        ValueError: The dataset has none of these attributes.
    """
    for name in ("targets", "labels"):
        if (found := getattr(dataset, name, None)) is not None:
            return torch.as_tensor(found)
    if tensors := getattr(dataset, "tensors", None):
        return tensors[-1]
    raise ValueError(
        f"data is a partition by labels, but {type(dataset).__name__} has no attribute targets, "
        "labels or tensors: add one of these, or divide the samples yourself and set data='user'"
    )


def _is_divided(loader: DataLoader) -> bool:
    samplers = [loader.sampler, getattr(loader.batch_sampler, "sampler", None)]
    return any(
        isinstance(sampler, PartitionSampler)
        or (isinstance(sampler, DistributedSampler) and not _is_of_one_process(sampler))
        for sampler in samplers
    )


def _is_of_one_process(sampler: Any) -> bool:
    """Whether a ``DistributedSampler`` was created in an agent's own process group."""
    return type(sampler) is DistributedSampler and sampler.num_replicas == 1


def _order_of(loader: DataLoader, data: Data) -> Sampler:
    """Return the sampler of ``loader`` after checking that it can be replaced.

    Raises:
        ValueError: The sampler does not visit every sample exactly once, or the batch sampler
            cannot be rebuilt around another sampler.
    """
    name = repr(data) if isinstance(data, str) else type(data).__name__
    sampler: Any = loader.sampler
    # With a user's batch_sampler, torch sets loader.sampler to a default that is never used.
    if loader.batch_size is None and loader.batch_sampler is not None:
        batches = loader.batch_sampler
        sampler = getattr(batches, "sampler", None)
        # Lightning rebuilds only subclasses of BatchSampler around another sampler.
        if not isinstance(batches, BatchSampler) or type(batches) is BatchSampler:
            raise ValueError(
                f"data={name} would replace batch_sampler={type(batches).__name__}: pass "
                "batch_size, shuffle and drop_last to the DataLoader instead, or divide the "
                "samples yourself and set data='user'"
            )
    if not _visits_all_once(sampler, loader.dataset):
        raise ValueError(
            f"data={name} would replace {type(sampler).__name__} and discard its selection of "
            "samples: wrap the dataset in torch.utils.data.Subset, or divide it yourself and set "
            "data='user'"
        )
    return sampler


def _visits_all_once(sampler: Any, dataset: Any) -> bool:
    # Exact classes, because a subclass may select samples.
    if _is_of_one_process(sampler):
        return len(sampler.dataset) == len(dataset)
    if type(sampler) is RandomSampler:
        is_whole = not sampler.replacement and len(sampler) == len(dataset)
    else:
        is_whole = type(sampler) is SequentialSampler
    return is_whole and len(sampler.data_source) == len(dataset)
