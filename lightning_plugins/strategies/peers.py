"""Communication between agents: pairwise exchange, reductions and gathers."""

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

    @property
    @abstractmethod
    def agents(self) -> tuple[int, ...]:
        """The agents that take part, in increasing order."""

    @abstractmethod
    def perform(self, operation: Callable[[Any], T]) -> T:
        """Run ``operation(group)``; it must be safe to repeat."""

    @abstractmethod
    def broadcast_object(self, value: Any, source: int) -> Any:
        """Return the ``value`` of agent ``source``, or of the first agent if it was dropped."""

    @abstractmethod
    def barrier(self) -> None:
        """Wait for the other agents."""

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

    @property
    def is_first(self) -> bool:
        """Whether this agent writes checkpoints and logs for all."""
        return self.agent == self.agents[0]

    def exchange(
        self, payload: Sequence[Tensor], plan: Callable[[], MixingPlan], kind: str = "gossip"
    ) -> tuple[MixingPlan, Mapping[int, list[Tensor]]]:
        """Send ``payload`` along a plan's edges and receive other agents' into new memory.

        Args:
            payload: Contiguous tensors, with the same shapes and dtypes on all agents.
            plan: Creates the plan; called again after agents were dropped.
            kind: The ledger's kind of traffic.

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

        made, received = self.perform(transfer)
        edges = len(made.destinations(self.agent))
        nbytes = sum(tensor.nbytes for tensor in payload)
        self._record(kind, edges * nbytes, edges * len(payload), started)
        return made, received

    def average(self, flats: Sequence[Tensor], kind: str) -> list[Tensor]:
        """Average each tensor over agents; all agents get the same bits."""
        return [self.reduce(flat, "mean", kind) for flat in flats]

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

        result = self.perform(all_reduce)
        if op == "mean":
            count = len(self.agents)
            if result.is_floating_point() or result.is_complex():
                result = result / count
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

        parts = self.perform(all_gather)
        others = len(self.agents) - 1
        self._record(kind, others * own.nbytes, others, started)
        return parts

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

        copies = self.perform(from_first)
        with torch.no_grad():
            for tensor, copy in zip(tensors, copies, strict=True):
                tensor.copy_(copy)
        others = len(self.agents) - 1 if self.is_first else 0
        sent = others * sum(tensor.nbytes for tensor in tensors)
        self._record(kind, sent, others * len(tensors), started)

    def _record(self, kind: str, bytes_sent: int, messages: int, started: float) -> None:
        self.ledger.record(self.agent, kind, bytes_sent, messages, perf_counter() - started)


class FixedPeers(Peers):
    """All agents of torch's default process group; the first failure ends the run.

    Without a process group there is one agent.
    """

    @property
    def agents(self) -> tuple[int, ...]:
        """All ranks."""
        return tuple(range(dist.get_world_size() if dist.is_initialized() else 1))

    def perform(self, operation: Callable[[Any], T]) -> T:
        """Run ``operation`` once."""
        return operation(dist.group.WORLD if dist.is_initialized() else None)

    def drop(self, failed: Mapping[int, str]) -> None:
        """End the run on all agents.

        Raises:
            RuntimeError: Always.
        """
        reasons = "; ".join(f"agent {agent} has {why}" for agent, why in sorted(failed.items()))
        raise RuntimeError(f"decentralized training cannot continue: {reasons}")

    def broadcast_object(self, value: Any, source: int) -> Any:
        """Return the ``value`` of agent ``source``; torch pickles it."""
        if not dist.is_initialized():
            return value
        values = [value]
        dist.broadcast_object_list(values, source)
        self.ledger.record(self.agent, "control", messages=1)
        return values[0]

    def barrier(self) -> None:
        """Wait for the other agents."""
        if not dist.is_initialized():
            return
        started = perf_counter()
        devices = [torch.cuda.current_device()] if dist.get_backend() == "nccl" else None
        dist.barrier(device_ids=devices)
        self._record("control", 0, 1, started)


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
