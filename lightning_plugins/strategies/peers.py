"""Communication between agents: pairwise exchange, reductions and gathers."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from functools import partial
from time import perf_counter
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import Store
from torchmetrics import Metric
from torchmetrics.metric import jit_distributed_available

from lightning_plugins.strategies.booked_store import BookedStore
from lightning_plugins.strategies.ledger import CommLedger, ring_all_reduce_bytes
from lightning_plugins.strategies.meetings import POLL_SECONDS, Outcome, Worker
from lightning_plugins.strategies.topologies import MixingPlan
from lightning_plugins.strategies.wire import ErrorFeedback, Wire, shares

T = TypeVar("T")

_STEPS = "_lightning_plugins_steps"  # of a thread: the steps at which its operation was started
_MOST_DIMENSIONS = 8
_DTYPES = (
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64),
    *(torch.complex128, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)


class Peers(ABC):
    """One agent's connection to the others: collectives and pairwise transfers.

    An agent's number is its rank at the start of the run; it does not change when others fail.

    Args:
        agent: Number of this agent.
        ledger: The ledger that records the traffic.
        timeout: Timeout of a transfer.
    """

    def __init__(self, agent: int, ledger: CommLedger, timeout: timedelta) -> None:
        self.agent = agent
        self.ledger = ledger
        self.timeout = timeout
        self._steps = 0
        self._background: Outcome | None = None
        self._background_worker = Worker()
        self.while_waiting: Callable[[], None] | None = None
        """Called about once per second while this agent waits for others."""
        self._reduced: list[Metric] = []
        self.when = "after step"  # what steps counts, in errors
        self.inside: Peers | None = None
        """The processes of this agent, if it has several: each communicates with the processes of
        the same place in the other agents."""

    @property
    def steps(self) -> int:
        """Number of optimizer steps so far; part of errors and of the record of lost agents."""
        return getattr(threading.current_thread(), _STEPS, self._steps)

    @steps.setter
    def steps(self, steps: int) -> None:
        self._steps = steps

    def in_background(self, operation: Callable[[], Any]) -> Outcome:
        """Start ``operation``, which may communicate, beside the caller.

        The next operation of the caller waits for it, so the order is the same on all agents.
        """
        steps = self.steps

        def run() -> Any:
            setattr(threading.current_thread(), _STEPS, steps)
            return operation()

        self._background = self._background_worker.start(run)
        return self._background

    def result_of(self, outcome: Outcome) -> Any:
        """Wait for an operation in the background and return its result, or raise its error."""
        while not outcome.done.wait(POLL_SECONDS):
            if self.while_waiting is not None:
                self.while_waiting()
        if outcome.error is not None:
            raise outcome.error
        return outcome.result

    def _is_in_background(self) -> bool:
        return hasattr(threading.current_thread(), _STEPS)

    def _wait_for_background(self) -> None:
        if self._background is not None and not self._is_in_background():
            background, self._background = self._background, None
            self.result_of(background)

    @property
    def store(self) -> BookedStore | None:
        """A store that all agents share; None for one agent and with NCCL."""
        return None

    def _booked(self, store: Store | BookedStore) -> BookedStore:
        """Record the traffic with ``store`` as control traffic of this agent."""
        plain = store.plain if isinstance(store, BookedStore) else store
        return BookedStore(plain, partial(self.ledger.add, self.agent, "control"))

    @property
    @abstractmethod
    def agents(self) -> tuple[int, ...]:
        """The agents that take part, in increasing order."""

    @abstractmethod
    def perform(
        self,
        operation: Callable[[Any], T],
        what: str = "a collective operation",
        partners: Collection[int] | None = None,
    ) -> T:
        """Run ``operation(group)``; it must be safe to repeat.

        Args:
            operation: The transfer.
            what: What the operation does; the same on all agents that take part.
            partners: The agents that take part in a pairwise exchange; None if all do.
        """

    @abstractmethod
    def broadcast_object(self, value: Any, source: int) -> Any:
        """Return the ``value`` of agent ``source``, or of the first agent if it was dropped."""

    def barrier(self, name: str | None = None) -> None:
        """Wait for the other agents; ``name`` is part of errors."""
        started = perf_counter()
        self.perform(lambda group: None, f"barrier {name or ''}".rstrip())
        self._record("control", 0, 1, started)

    def reduce_metrics_of(self, module: nn.Module) -> None:
        """Reduce the torchmetrics of ``module`` over agents until :meth:`release_metrics`."""

        def gather(tensor: Tensor, group: Any = None) -> list[Tensor]:
            of_agents = self.gather_uneven(tensor)
            if self.inside is None:
                return of_agents
            return [part for one in of_agents for part in self.inside.gather_uneven(one)]

        for part in module.modules():
            if isinstance(part, Metric) and part.dist_sync_fn is None:
                part.dist_sync_fn = gather
                part.distributed_available_fn = lambda: True
                self._reduced.append(part)

    def release_metrics(self) -> None:
        """Let metrics reduce over torch's default process group again."""
        for part in self._reduced:
            part.dist_sync_fn = None
            part.distributed_available_fn = jit_distributed_available
        self._reduced.clear()

    def any_in_agent(self, flags: Tensor) -> Tensor:
        """Return the largest of each value over the processes of this agent."""
        return flags if self.inside is None else self.inside.reduce(flags, "max")

    def sum_in_agent(self, values: Tensor) -> Tensor:
        """Sum each value over the processes of this agent."""
        return values if self.inside is None else self.inside.reduce(values, "sum")

    can_drop = False
    """Whether the run continues when an agent fails."""

    @abstractmethod
    def drop(self, failed: Mapping[int, str]) -> None:
        """Continue without some agents; all agents must call it with the same arguments.

        Args:
            failed: The reason for each agent to drop.

        Raises:
            RuntimeError: The run ends when an agent fails, or this agent is among them.
        """

    def end(self, reason: str) -> None:  # noqa: B027  (nobody may be left to read it)
        """Report to the others why this agent takes part in nothing more."""

    @property
    def is_first(self) -> bool:
        """Whether this agent writes checkpoints and logs for all."""
        return self.agent == self.agents[0]

    def exchange(
        self,
        payload: Sequence[Tensor],
        plan: Callable[[], MixingPlan],
        kind: str = "gossip",
        layout: int = 0,
    ) -> tuple[MixingPlan, Mapping[int, list[Tensor]]]:
        """Send ``payload`` along a plan's edges and receive other agents' into new memory.

        Args:
            payload: Contiguous tensors, with the same shapes and dtypes on all agents.
            plan: Creates the plan; called again after agents were dropped.
            kind: The ledger's kind of traffic.
            layout: Fingerprint of the tensors' names and shapes; must be equal on all agents.

        Returns:
            The plan that was carried out, and the tensors received from each source.
        """
        started = perf_counter()

        def transfer(group: Any) -> tuple[MixingPlan, dict[int, list[Tensor]]]:
            made = plan()
            received = {
                source: [torch.empty_like(tensor) for tensor in payload]
                for source in made.sources(self.agent)
            }
            place = {agent: index for index, agent in enumerate(self.agents)}
            incoming = [
                (tensor, place[source], tag)
                for source, tensors in received.items()
                for tag, tensor in enumerate(tensors)
            ]
            outgoing = [
                (tensor, place[destination], tag)
                for destination in made.destinations(self.agent)
                for tag, tensor in enumerate(payload)
            ]
            transfer_pairs(group, outgoing, incoming, self.timeout)
            return made, received

        nbytes = sum(tensor.nbytes for tensor in payload)
        first = plan()
        partners = {*first.sources(self.agent), *first.destinations(self.agent)}
        what = f"{kind} {self.when} {self.steps} ({nbytes} bytes, layout {layout:x})"
        made, received = self.perform(transfer, what, partners)
        edges = len(made.destinations(self.agent))
        self._record(kind, edges * nbytes, edges * len(payload), started)
        return made, received

    def average(self, flats: Sequence[Tensor], kind: str) -> list[Tensor]:
        """Average each tensor over agents; all agents get the same bits."""
        return [self.reduce(flat, "mean", kind) for flat in flats]

    def average_encoded(
        self, flat: Tensor, wire: Wire, feedback: ErrorFeedback, key: str, kind: str
    ) -> tuple[Tensor, Tensor]:
        """Average ``flat`` over agents in the format of ``wire``; all agents get the same bits.

        Each agent averages one share of the values in at least float32 and sends the encoded
        result to the others, so an agent sends as much as in a ring all-reduce.

        Args:
            flat: This agent's values ``(numel,)``.
            wire: The format of the transfer.
            feedback: Holds the rest of rounding the mean of this agent's share.
            key: Name of ``flat`` in ``feedback``.
            kind: The ledger's kind of traffic.

        Returns:
            The mean of what the agents sent, and what this agent sent, ``(numel,)`` each.
        """
        started = perf_counter()
        sent_bytes = 0

        def transfer(group: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            nonlocal sent_bytes
            count, own = len(self.agents), self.agents.index(self.agent)
            parts = shares(flat, count)
            encoded = [wire.encode(part).contiguous() for part in parts]
            as_sent = torch.cat(
                [wire.decode(one, part) for one, part in zip(encoded, parts, strict=True)]
            )
            others = [place for place in range(count) if place != own]
            arrived = {place: torch.empty_like(encoded[own]) for place in others}
            transfer_pairs(
                group,
                [(encoded[place], place, 0) for place in others],
                [(arrived[place], place, 0) for place in others],
                self.timeout,
            )
            arrived[own] = encoded[own]
            mean = wire.decode(arrived[0], parts[own])
            for place in range(1, count):
                mean = mean + wire.decode(arrived[place], parts[own])
            mean = feedback.add_to(key, mean / count) if wire.has_feedback else mean / count
            encoded_mean = wire.encode(mean).contiguous()
            means = [torch.empty_like(one) for one in encoded]
            means[own] = encoded_mean
            transfer_pairs(
                group,
                [(encoded_mean, place, 1) for place in others],
                [(means[place], place, 1) for place in others],
                self.timeout,
            )
            decoded = [wire.decode(one, part) for one, part in zip(means, parts, strict=True)]
            sent_bytes = sum(encoded[place].nbytes for place in others)
            sent_bytes += len(others) * encoded_mean.nbytes
            return torch.cat(decoded), as_sent, mean, decoded[own]

        result, as_sent, mean, mean_as_sent = self.perform(
            transfer, f"{kind} {self.when} {self.steps} ({len(flat)} values as {wire.name})"
        )
        if wire.has_feedback:
            feedback.keep(key, mean, mean_as_sent)
        self._record(kind, sent_bytes, 2 * (len(self.agents) - 1), started)
        return result, as_sent

    def reduce(self, tensor: Tensor, op: str, kind: str = "control") -> Tensor:
        """Reduce over agents by ``mean``, ``sum``, ``max`` or ``min``, to a new tensor."""
        started = perf_counter()
        low = tensor.dtype in (torch.bfloat16, torch.float16)
        wide = tensor.float() if low else tensor

        def all_reduce(group: Any) -> Tensor:
            result = wide.detach().clone(memory_format=torch.contiguous_format)
            options = dist.AllreduceOptions()
            options.reduceOp = _OPERATIONS[op]
            if group is not None:
                group.allreduce([result], options).wait(self.timeout)
            return result

        shape = f"{wide.numel()} values of {str(wide.dtype).removeprefix('torch.')}"
        at = f" {self.when} {self.steps}" if kind in ("gossip", "merge") else ""
        result = self.perform(all_reduce, f"{kind}{at}: {op} of {shape}")
        if op == "mean":
            count = len(self.agents)
            if result.is_floating_point() or result.is_complex():
                result.div_(count)
            else:
                result = (result.double() / count).to(result.dtype)
        sent = ring_all_reduce_bytes(wide.nbytes, len(self.agents))
        self._record(kind, round(sent), 2 * (len(self.agents) - 1), started)
        return result.to(tensor.dtype)

    def gather(self, tensor: Tensor, kind: str = "control") -> list[Tensor]:
        """Return the ``tensor`` of each agent, in the order of ``agents``; all have one shape."""
        started = perf_counter()
        own = tensor.detach().contiguous()

        def all_gather(group: Any) -> list[Tensor]:
            parts = [torch.empty_like(own) for _ in self.agents]
            if group is None:
                return [own.clone()]
            group.allgather([parts], [own]).wait(self.timeout)
            return parts

        parts = self.perform(all_gather, f"{kind}: gather of {tuple(own.shape)} {own.dtype}")
        others = len(self.agents) - 1
        self._record(kind, others * own.nbytes, others, started)
        return parts

    def gather_uneven(self, tensor: Tensor) -> list[Tensor]:
        """Return the ``tensor`` of each agent, in the order of ``agents``; shapes may differ.

        An agent without data may pass an empty tensor of another number of dimensions and dtype, as
        the list states of torchmetrics do.
        """
        own = tensor.detach().contiguous()
        header = torch.tensor([own.numel(), own.dim(), _DTYPES.index(own.dtype)])
        sizes = [list(own.shape) + [0] * (_MOST_DIMENSIONS - own.dim())]
        shapes = torch.cat([header, torch.tensor(sizes).reshape(-1)]).to(own.device)
        of_all = [part.tolist() for part in self.gather(shapes)]
        if all(part == of_all[0] for part in of_all) or not any(part[0] for part in of_all):
            return self.gather(own) if own.numel() else [own.clone() for _ in of_all]
        content = own.cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
        parts = self.gather_bytes(content, own.device)
        filled = next(one for one in of_all if one[0])
        result = []
        for part, (numel, dimensions, dtype, *shape) in zip(parts, of_all, strict=True):
            if numel:
                values = torch.frombuffer(bytearray(part), dtype=_DTYPES[dtype])
                result.append(values.reshape(shape[:dimensions]).to(own.device))
            else:
                shape = [0, *filled[4 : 3 + filled[1]]]
                result.append(torch.empty(shape, dtype=_DTYPES[filled[2]], device=own.device))
        return result

    def gather_bytes(self, content: bytes, device: torch.device) -> list[bytes]:
        """Return the ``content`` of each agent, in the order of ``agents``."""
        sizes = self.gather(torch.tensor([len(content)], device=device))
        longest = max(int(size) for size in sizes)
        padded = torch.zeros(max(longest, 1), dtype=torch.uint8, device=device)
        if content:
            own = torch.frombuffer(bytearray(content), dtype=torch.uint8)
            padded[: len(content)] = own.to(device)
        parts = self.gather(padded)
        return [
            bytes(part[: int(size)].cpu().numpy()) for part, size in zip(parts, sizes, strict=True)
        ]

    def broadcast(self, tensors: Sequence[Tensor], kind: str) -> None:
        """Copy the first agent's values into ``tensors``."""
        started = perf_counter()

        def from_first(group: Any) -> list[Tensor]:
            copies = [tensor.detach().clone() for tensor in tensors]
            options = dist.BroadcastOptions()
            options.rootRank, options.rootTensor = 0, 0
            if group is not None:
                for copy in copies:
                    group.broadcast([copy], options).wait(self.timeout)
            return copies

        copies = self.perform(from_first, f"{kind}: copy from the first agent")
        with torch.no_grad():
            for tensor, copy in zip(tensors, copies, strict=True):
                tensor.copy_(copy)
        others = len(self.agents) - 1 if self.is_first else 0
        sent = others * sum(tensor.nbytes for tensor in tensors)
        self._record(kind, sent, others * len(tensors), started)

    def _record(self, kind: str, bytes_sent: int, messages: int, started: float) -> None:
        self.ledger.record(self.agent, kind, bytes_sent, messages, perf_counter() - started)


_OPERATIONS = {
    "mean": dist.ReduceOp.SUM,
    "sum": dist.ReduceOp.SUM,
    "max": dist.ReduceOp.MAX,
    "min": dist.ReduceOp.MIN,
}


def transfer_pairs(
    group: Any,
    outgoing: Sequence[tuple[Tensor, int, int]],
    incoming: Sequence[tuple[Tensor, int, int]],
    timeout: timedelta,
) -> None:
    """Start all sends and receives ``(tensor, rank in the group, tag)`` and wait for all of them.

    Raises:
        RuntimeError: A transfer failed or took longer than ``timeout``.
    """
    if not outgoing and not incoming:
        return
    if group.name() == "nccl":
        # NCCL would deadlock unless all transfers of a round are started as one batch.
        pairs = [
            *(dist.P2POp(dist.irecv, t, place) for t, place, _ in incoming),
            *(dist.P2POp(dist.isend, t, place) for t, place, _ in outgoing),
        ]
        works = dist.batch_isend_irecv(pairs)
    else:
        works = [group.recv([tensor], place, tag) for tensor, place, tag in incoming]
        works += [group.send([tensor], place, tag) for tensor, place, tag in outgoing]
    for work in works:
        work.wait(timeout)
