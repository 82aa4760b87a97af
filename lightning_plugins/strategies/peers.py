"""What an agent can do with the others: exchange, average, gather, agree."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from time import perf_counter
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_plugins.strategies.ledger import CommLedger, ring_all_reduce_bytes
from lightning_plugins.strategies.topologies import MixingPlan

T = TypeVar("T")


class Peers(ABC):
    """The agents of a run as one of them sees them; what is sent is booked in ``ledger``.

    Agents are named by their rank at the start of the run, whoever has gone since.

    Args:
        agent: this one.
        ledger: where traffic is booked.
        timeout: after which a transfer has failed.
    """

    def __init__(self, agent: int, ledger: CommLedger, timeout: timedelta) -> None:
        self.agent = agent
        self.ledger = ledger
        self.timeout = timeout

    @property
    @abstractmethod
    def agents(self) -> tuple[int, ...]:
        """Those that take part, in rising order."""

    @abstractmethod
    def perform(self, operation: Callable[[Any], T]) -> T:
        """Run ``operation(group)``, which must change nothing that a repetition would find."""

    @abstractmethod
    def broadcast_object(self, value: Any, source: int) -> Any:
        """The ``value`` of agent ``source``, or of the first one where it is gone."""

    @abstractmethod
    def barrier(self) -> None:
        """Wait for the others."""

    can_drop = False
    """Whether the run goes on when an agent is lost."""

    @abstractmethod
    def lose(self, ill: Mapping[int, str]) -> None:
        """Go on without the agents of ``ill``, which gives the reasons; all agents call it alike.

        Raises:
            RuntimeError: nobody may be lost, or this agent is among them.
        """

    @property
    def is_first(self) -> bool:
        """Whether this agent speaks for all: writes checkpoints and logs."""
        return self.agent == self.agents[0]

    def exchange(
        self, payload: Sequence[Tensor], plan: Callable[[], MixingPlan], kind: str = "gossip"
    ) -> tuple[MixingPlan, Mapping[int, list[Tensor]]]:
        """Send ``payload`` along a plan's edges and receive what they bring, into new memory.

        Args:
            payload: contiguous tensors, alike on all agents.
            plan: makes the plan; asked again where agents have gone.
            kind: under which it is booked.

        Returns:
            The plan that was carried out, and for each source its tensors.
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

        made, received = self.perform(transfer)
        edges = len(made.destinations(self.agent))
        nbytes = sum(tensor.nbytes for tensor in payload)
        self._book(kind, edges * nbytes, edges * len(payload), started)
        return made, received

    def average(self, flats: Sequence[Tensor], kind: str) -> list[Tensor]:
        """The mean over agents of each tensor: the same bits for all of them."""
        return [self.reduce(flat, "mean", kind) for flat in flats]

    def reduce(self, tensor: Tensor, op: str, kind: str = "control") -> Tensor:
        """``mean``, ``sum``, ``max`` or ``min`` over agents, as a new tensor."""
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

        result = self.perform(all_reduce)
        if op == "mean":
            count = len(self.agents)
            if result.is_floating_point() or result.is_complex():
                result = result / count
            else:
                result = (result.double() / count).to(result.dtype)
        sent = ring_all_reduce_bytes(wide.nbytes, len(self.agents))
        self._book(kind, round(sent), 2 * (len(self.agents) - 1), started)
        return result.to(tensor.dtype)

    def gather(self, tensor: Tensor, kind: str = "control") -> list[Tensor]:
        """The ``tensor`` of each agent, in the order of ``agents``; all of one shape."""
        started = perf_counter()
        own = tensor.detach().contiguous()

        def all_gather(group: Any) -> list[Tensor]:
            parts = [torch.empty_like(own) for _ in self.agents]
            if group is None:
                return [own.clone()]
            group.allgather([parts], [own]).wait(self.timeout)
            return parts

        parts = self.perform(all_gather)
        others = len(self.agents) - 1
        self._book(kind, others * own.nbytes, others, started)
        return parts

    def gather_bytes(self, content: bytes, device: torch.device) -> list[bytes]:
        """The ``content`` of each agent, in the order of ``agents``."""
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
        """Give ``tensors`` the values that the first agent has, in place."""
        started = perf_counter()

        def from_first(group: Any) -> list[Tensor]:
            copies = [tensor.detach().clone() for tensor in tensors]
            options = dist.BroadcastOptions()
            options.rootRank, options.rootTensor = 0, 0
            if group is not None:
                for copy in copies:
                    group.broadcast([copy], options).wait(self.timeout)
            return copies

        copies = self.perform(from_first)
        with torch.no_grad():
            for tensor, copy in zip(tensors, copies, strict=True):
                tensor.copy_(copy)
        others = len(self.agents) - 1 if self.is_first else 0
        sent = others * sum(tensor.nbytes for tensor in tensors)
        self._book(kind, sent, others * len(tensors), started)

    def _book(self, kind: str, bytes_sent: int, messages: int, started: float) -> None:
        self.ledger.book(self.agent, kind, bytes_sent, messages, perf_counter() - started)


class FixedPeers(Peers):
    """All agents of torch's default process group, for the whole run: the first failure ends it.

    Without a process group there is one agent.
    """

    @property
    def agents(self) -> tuple[int, ...]:
        """All of them."""
        return tuple(range(dist.get_world_size() if dist.is_initialized() else 1))

    def perform(self, operation: Callable[[Any], T]) -> T:
        """Run ``operation`` once."""
        return operation(dist.group.WORLD if dist.is_initialized() else None)

    def lose(self, ill: Mapping[int, str]) -> None:
        """End the run, on all agents alike.

        Raises:
            RuntimeError: always.
        """
        told = "; ".join(f"agent {agent} has {reason}" for agent, reason in sorted(ill.items()))
        raise RuntimeError(f"decentralized training cannot go on: {told}")

    def broadcast_object(self, value: Any, source: int) -> Any:
        """As torch does it: pickled, among the processes of one user."""
        if not dist.is_initialized():
            return value
        values = [value]
        dist.broadcast_object_list(values, source)
        self.ledger.book(self.agent, "control", messages=1)
        return values[0]

    def barrier(self) -> None:
        """Wait for the others."""
        if not dist.is_initialized():
            return
        started = perf_counter()
        devices = [torch.cuda.current_device()] if dist.get_backend() == "nccl" else None
        dist.barrier(device_ids=devices)
        self._book("control", 0, 1, started)


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
    """Send and receive ``(tensor, place in the group, tag)`` all at once, and wait for all.

    Raises:
        RuntimeError: a transfer failed or took longer than ``timeout``.
    """
    if not outgoing and not incoming:
        return
    if group.name() == "nccl":
        # NCCL would wait for itself unless all transfers of a round are posted as one.
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
