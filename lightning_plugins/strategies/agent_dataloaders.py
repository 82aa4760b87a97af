"""What each agent trains on."""

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
    """Which samples an agent gets: ``lightning_plugins.datamodules.DirichletPartition`` is one."""

    def indices(self, labels: Tensor, rank: int, world_size: int, epoch: int = 0) -> Tensor:
        """Indices into ``labels`` of the samples of agent ``rank`` in ``epoch``."""
        ...


Data = Literal["iid", "user"] | Partition

_ENDED = object()


def agents_loader(loader: Any, data: Data, agent: int, num_agents: int, seed: int) -> Any:
    """The training loader of ``agent``, made of one over all samples.

    A loader that divides the samples itself is left as it is: one with a ``DistributedSampler``,
    one over an iterable dataset, and one that is no ``torch.utils.data.DataLoader``, such as the
    ``ResumableDataLoader`` of this package, which its DataModule gives rank and world size. Of the
    others only those that visit every sample once are divided, because the agent's own sampler
    replaces theirs.

    Args:
        loader: what ``train_dataloader`` returned.
        data: ``iid`` deals the samples out, ``user`` changes nothing, a partition chooses.
        agent: of ``num_agents``.
        num_agents: that share the samples.
        seed: of the order.

    Raises:
        ValueError: a sampler that chooses samples, or a partition by labels of a dataset that has
            none we can find.
    """
    if data == "user" or not isinstance(loader, DataLoader):
        return loader
    if isinstance(loader.dataset, IterableDataset) or _is_divided(loader):
        return loader
    order = _order_of(loader, data)
    sampler: Sampler
    if data == "iid":
        is_ordered = isinstance(order, SequentialSampler)
        sampler = DistributedSampler(
            loader.dataset, num_agents, agent, shuffle=not is_ordered, seed=seed
        )
    else:
        sampler = PartitionSampler(labels_of(loader.dataset), data, agent, num_agents, seed)
    return with_sampler(loader, sampler)


class PartitionSampler(Sampler[int]):
    """The samples that a partition gives one agent, in an order drawn from (seed, agent, epoch).

    Args:
        labels: class numbers ``(num_samples,)`` of the whole dataset.
        partition: which samples the agent gets.
        agent: of ``num_agents``.
        num_agents: that share the samples.
        seed: of the order.
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
        """Choose the epoch whose samples come next; Lightning calls it."""
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
    """Yields lists with one batch of each agent, as many as each agent has.

    Args:
        loaders: of the agents, of equal length.

    Raises:
        ValueError: they turn out to be of different length, where they could not say so before.
    """

    batch_sampler = None
    """Lightning asks for it, to tell it the epoch; the agents' are told through ``sampler``."""

    def __init__(self, loaders: Sequence[Any]) -> None:
        self.loaders = list(loaders)

    @property
    def sampler(self) -> "AgentDataLoaders":
        """What is told the epoch."""
        return self

    @property
    def batch_size(self) -> int | None:
        """Samples of one agent's batch."""
        return getattr(self.loaders[0], "batch_size", None)

    def set_epoch(self, epoch: int) -> None:
        """Tell every agent's sampler the epoch."""
        for loader in self.loaders:
            inner = getattr(loader, "batch_sampler", None)
            for sampler in (getattr(loader, "sampler", None), getattr(inner, "sampler", None)):
                tell = getattr(sampler, "set_epoch", None)
                if tell is not None:
                    tell(epoch)

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
                    f"agents {ended} have {number} training batches an epoch and others have more: "
                    "set trainer.limit_train_batches to the smallest number"
                )
            yield batches

    def state_dict(self) -> dict[str, Any]:
        """The state of each loader that has one."""
        return {
            "agents": [
                loader.state_dict() if hasattr(loader, "state_dict") else None
                for loader in self.loaders
            ]
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue each loader that has a state."""
        for loader, own in zip(self.loaders, state["agents"], strict=True):
            if own is not None:
                loader.load_state_dict(own)


def labels_of(dataset: Dataset) -> Tensor:
    """Class numbers ``(num_samples,)`` of a dataset with ``targets``, ``labels`` or ``tensors``.

    Raises:
        ValueError: it has none of these.
    """
    for name in ("targets", "labels"):
        if (found := getattr(dataset, name, None)) is not None:
            return torch.as_tensor(found)
    if tensors := getattr(dataset, "tensors", None):
        return tensors[-1]
    raise ValueError(
        f"data is a partition by labels, and {type(dataset).__name__} has neither targets, labels "
        "nor tensors: give it one of these, or divide the samples yourself and set data='user'"
    )


def _is_divided(loader: DataLoader) -> bool:
    samplers = [loader.sampler, getattr(loader.batch_sampler, "sampler", None)]
    return any(isinstance(sampler, DistributedSampler | PartitionSampler) for sampler in samplers)


def _order_of(loader: DataLoader, data: Data) -> Sampler:
    """The sampler of ``loader``, which visits every sample once.

    Raises:
        ValueError: it does not, or its batches could not be made of another sampler.
    """
    name = repr(data) if isinstance(data, str) else type(data).__name__
    sampler: Any = loader.sampler
    # Beside a batch_sampler of the user's, torch gives loader.sampler a value that nothing uses.
    if loader.batch_size is None and loader.batch_sampler is not None:
        batches = loader.batch_sampler
        sampler = getattr(batches, "sampler", None)
        # Lightning makes a subclass anew around another sampler; BatchSampler itself it drops.
        if not isinstance(batches, BatchSampler) or type(batches) is BatchSampler:
            raise ValueError(
                f"data={name} would take batch_sampler={type(batches).__name__} away: give the "
                "DataLoader batch_size, shuffle and drop_last instead, or divide the samples "
                "yourself and set data='user'"
            )
    if not _visits_all_once(sampler, loader.dataset):
        raise ValueError(
            f"data={name} would take {type(sampler).__name__} away, and with it its choice of "
            "samples: wrap the dataset in torch.utils.data.Subset, or divide it yourself and set "
            "data='user'"
        )
    return sampler


def _visits_all_once(sampler: Any, dataset: Any) -> bool:
    # Exact classes, since a subclass may choose as it likes.
    if type(sampler) is RandomSampler:
        is_whole = not sampler.replacement and len(sampler) == len(dataset)
    else:
        is_whole = type(sampler) is SequentialSampler
    return is_whole and len(sampler.data_source) == len(dataset)
