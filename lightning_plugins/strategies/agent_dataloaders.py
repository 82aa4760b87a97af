"""Training data of the agents: dividing a dataset among them and joining their loaders."""

import math
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from hashlib import sha256
from itertools import count, cycle, islice
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from lightning.fabric.utilities.data import sized_len
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
    WeightedRandomSampler,
)

from lightning_plugins._lightning_compat.loaders import with_sampler
from lightning_plugins.nn.random_state import RandomState, seeded


@runtime_checkable
class Partition(Protocol):
    """Assigns samples to agents, as ``lightning_plugins.datamodules.DirichletPartition`` does."""

    def indices(self, labels: Tensor, rank: int, world_size: int, epoch: int = 0) -> Tensor:
        """Return indices into ``labels`` of the samples of agent ``rank`` in ``epoch``."""
        ...


Data = Literal["iid", "user"] | Partition
Compare = Callable[[int], None]

_ENDED = object()


def agent_dataloader(
    loader: Any,
    data: Data,
    agent: int,
    num_agents: int,
    seed: int,
    compare: Compare | None = None,
    common: "CommonOrder | None" = None,
) -> Any:
    """Create the training loader of ``agent`` from a loader over all samples.

    Loaders that are already divided are returned unchanged: those with a ``DistributedSampler``,
    those over an iterable dataset, and those that are not a ``torch.utils.data.DataLoader``, such
    as this package's ``ResumableDataLoader``, which receives rank and world size from its
    DataModule.

    Args:
        loader: The return value of ``train_dataloader``.
        data: ``iid`` deals the loader's batches, or the samples of its sampler, to the agents in
            turn; ``user`` returns the loader unchanged; a partition assigns samples by label.
        agent: Number of the agent, from 0.
        num_agents: Number of agents that share the samples.
        seed: Seed of the sample order.
        compare: See :class:`CommonOrder`.
        common: The order that simulated agents share; None takes that of ``loader``.

    Raises:
        ValueError: The sampler draws by weights, or ``data`` is a partition and the sampler selects
            samples or the dataset has no labels that we can find.
    """
    if data == "user" or not isinstance(loader, DataLoader):
        return loader
    if isinstance(loader.dataset, IterableDataset) or _is_divided(loader):
        return loader
    if data == "iid":
        return _dealt(loader, agent, num_agents, seed, compare, common)
    _check_order(loader, data)
    sampler = PartitionSampler(labels_of(loader.dataset), data, agent, num_agents, seed)
    return with_sampler(loader, sampler)


def _dealt(
    loader: DataLoader,
    agent: int,
    num_agents: int,
    seed: int,
    compare: Compare | None,
    common: "CommonOrder | None",
) -> DataLoader:
    """Return ``loader`` with every n-th batch of its batch sampler, or sample of its sampler."""
    batches: Any = loader.batch_sampler
    # With a batch_sampler of the user, torch sets loader.sampler to a default that is never used.
    order: Any = loader.sampler if loader.batch_size or batches is None else batches
    drawn = getattr(order, "sampler", order)
    if isinstance(drawn, WeightedRandomSampler):
        raise ValueError(
            "data='iid' with WeightedRandomSampler, which draws each sample by its weight: set "
            "data='user' and give the sampler a generator of each agent, generator="
            "torch.Generator().manual_seed(trainer.global_rank), in train_dataloader"
        )
    if common is None:
        common = CommonOrder(order, seed, compare)
    share = AgentShare(common, agent, num_agents)
    dealt = copy(loader)
    # DataLoader refuses to assign these; a new one would lose the class and options of the user.
    dealt.__dict__["sampler"] = share  # on which Lightning calls set_epoch
    if order is batches:
        dealt.__dict__["batch_sampler"] = share
    elif batches is not None:
        own = BatchSampler(share, loader.batch_size, loader.drop_last)  # type: ignore[arg-type]
        dealt.__dict__["batch_sampler"] = own
    return dealt


def part_of_agent(loader: Any, place: int, places: int) -> Any:
    """Return one process' part of an agent's loader: every n-th sample of a partition.

    Loaders that the user divides are returned unchanged.
    """
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, PartitionSampler):
        return loader
    return with_sampler(loader, AgentShare(CommonOrder(sampler, sampler.seed), place, places))


class CommonOrder:
    """The order of a sampler or batch sampler that all agents know.

    Every agent iterates over the whole sampler while the random generators are seeded equally; the
    generators are then as they were before.

    Args:
        order: A sampler or batch sampler over all samples.
        seed: Seed of the random generators, together with the epoch.
        compare: Called once, with a digest of the first items; raises an error if the digests of
            the agents differ.
    """

    def __init__(self, order: Any, seed: int, compare: Compare | None = None) -> None:
        self.order = order
        self.seed = seed
        self._epoch = 0
        self._compare = compare
        self._turn = -1
        self._items: list[Any] = []

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self._epoch = epoch
        samplers: tuple[Any, ...] = (self.order, getattr(self.order, "sampler", None))
        for sampler in samplers:
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(epoch)

    @property
    def is_sized(self) -> bool:
        """Whether the sampler has a length."""
        return sized_len(self.order) is not None

    def items(self, turn: int) -> list[Any]:
        """Return all items of iteration number ``turn``, which simulated agents share."""
        if turn != self._turn or not self._items:  # a restored turn has no items
            with seeded(self._mixed_seed()):
                self._items, self._turn = list(self.order), turn
            self._compare_once(self._items)
        return self._items

    def rounds(self, num_agents: int) -> Iterator[list[Any]]:
        """Yield one item per agent at a time, from a sampler that may be endless."""
        with seeded(self._mixed_seed()):
            iterator, common = iter(self.order), RandomState.capture()
        while True:
            own = RandomState.capture()
            common.restore()
            items = list(islice(iterator, num_agents))
            common = RandomState.capture()
            own.restore()
            self._compare_once(items)
            if len(items) < num_agents:
                return
            yield items

    def _mixed_seed(self) -> int:
        return hash((self.seed, self._epoch)) % 2**63

    def _compare_once(self, items: list[Any]) -> None:
        compare, self._compare = self._compare, None
        if compare is not None:
            compare(int.from_bytes(sha256(repr(items).encode()).digest()[:7], "big"))


class AgentShare(Sampler[Any]):
    """Yields every n-th item of the common order: one agent's share of samples or batches.

    If the number of items is not a multiple of ``num_agents``, the last agents repeat items from
    the beginning, so that all take as many steps. The last items of a sampler without a length are
    dropped instead.

    Args:
        common: The order of all items.
        agent: Number of the agent, from 0.
        num_agents: Number of agents that share the items.
    """

    def __init__(self, common: CommonOrder, agent: int, num_agents: int) -> None:
        self.common = common
        self.agent = agent
        self.num_agents = num_agents
        self._turns = 0

    @property
    def batch_size(self) -> Any:
        """The batch size of a batch sampler that has one."""
        return self.common.order.batch_size

    @property
    def drop_last(self) -> Any:
        """Whether a batch sampler drops the last incomplete batch."""
        return self.common.order.drop_last

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration; called by Lightning."""
        self.common.set_epoch(epoch)

    def __len__(self) -> int:
        return math.ceil(len(self.common.order) / self.num_agents)

    def __iter__(self) -> Iterator[Any]:
        if not self.common.is_sized:
            for items in self.common.rounds(self.num_agents):
                yield items[self.agent]
            return
        self._turns += 1
        items = self.common.items(self._turns)
        padded = [*items, *islice(cycle(items), -len(items) % self.num_agents)]
        yield from padded[self.agent :: self.num_agents]


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


def order_of(loader: Any) -> CommonOrder | None:
    """Return the common order of a loader that :func:`agent_dataloader` has dealt out."""
    share = getattr(loader, "sampler", None)
    return share.common if isinstance(share, AgentShare) else None


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
        isinstance(sampler, PartitionSampler | AgentShare)
        or (isinstance(sampler, DistributedSampler) and not _is_of_one_process(sampler))
        for sampler in samplers
    )


def _is_of_one_process(sampler: Any) -> bool:
    """Whether a ``DistributedSampler`` was created in an agent's own process group."""
    return type(sampler) is DistributedSampler and sampler.num_replicas == 1


def _check_order(loader: DataLoader, data: Data) -> None:
    """Refuse a loader whose order of samples a partition would discard.

    Raises:
        ValueError: The sampler does not visit every sample exactly once, or the batch sampler
            cannot be rebuilt around another sampler.
    """
    name = type(data).__name__
    sampler: Any = loader.sampler
    # With a user's batch_sampler, torch sets loader.sampler to a default that is never used.
    if loader.batch_size is None and loader.batch_sampler is not None:
        batches = loader.batch_sampler
        sampler = getattr(batches, "sampler", None)
        # Lightning rebuilds only subclasses of BatchSampler around another sampler.
        if not isinstance(batches, BatchSampler) or type(batches) is BatchSampler:
            raise ValueError(
                f"data={name} would replace batch_sampler={type(batches).__name__}: pass "
                "batch_size, shuffle and drop_last to the DataLoader instead, set data='iid', or "
                "divide the samples yourself and set data='user'"
            )
    if not _visits_all_once(sampler, loader.dataset):
        raise ValueError(
            f"data={name} would replace {type(sampler).__name__} and discard its selection of "
            "samples: wrap the dataset in torch.utils.data.Subset, set data='iid', or divide it "
            "yourself and set data='user'"
        )


def _visits_all_once(sampler: Any, dataset: Any) -> bool:
    # Exact classes, because a subclass may select samples.
    if _is_of_one_process(sampler):
        return len(sampler.dataset) == len(dataset)
    if type(sampler) is RandomSampler:
        is_whole = not sampler.replacement and len(sampler) == len(dataset)
    else:
        is_whole = type(sampler) is SequentialSampler
    return is_whole and len(sampler.data_source) == len(dataset)
