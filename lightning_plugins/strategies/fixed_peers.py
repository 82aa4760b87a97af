"""Peers that are all agents of a process group, for the whole run."""

import hashlib
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from time import perf_counter
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from lightning_plugins.strategies.booked_store import BookedStore
from lightning_plugins.strategies.ledger import CommLedger
from lightning_plugins.strategies.meetings import Meetings
from lightning_plugins.strategies.packing import packed, unpacked
from lightning_plugins.strategies.peers import Peers, transfer_pairs

T = TypeVar("T")

_HEADER_TAG = 1 << 20


class FixedPeers(Peers):
    """All agents of a process group; the first failure ends the run.

    Args:
        agent: Number of this agent.
        ledger: The ledger that records the traffic.
        timeout: Timeout of a transfer.
        group: A gloo group of all agents; None uses torch's default group, or one agent without it.
        meetings: Compares this agent's operations with those of the others.
    """

    def __init__(
        self,
        agent: int,
        ledger: CommLedger,
        timeout: timedelta,
        group: Any = None,
        meetings: Meetings | None = None,
    ) -> None:
        super().__init__(agent, ledger, timeout)
        self.meetings = meetings
        if meetings is not None:
            meetings.store = self._booked(meetings.store)
        self._group = group
        self.apart: str | None = None
        """While agents take their own steps: the error of an operation that needs the others."""

    @property
    def store(self) -> BookedStore | None:
        """The store through which the agents have met."""
        return None if self.meetings is None else self.meetings.store

    @property
    def agents(self) -> tuple[int, ...]:
        """All ranks."""
        if self._group is not None:
            return tuple(range(self._group.size()))
        return tuple(range(dist.get_world_size() if dist.is_initialized() else 1))

    def perform(
        self,
        operation: Callable[[Any], T],
        what: str = "a collective operation",
        partners: Collection[int] | None = None,
    ) -> T:
        """Run ``operation`` once.

        Raises:
            DisagreementError: The agents that take part reached different operations.
            RuntimeError: The agents are apart.
        """
        if self.apart is not None and len(self.agents) > 1:
            raise RuntimeError(f"{self.apart} (needed: {what})")
        self._wait_for_background()
        meetings, group = self.meetings, self._group
        if meetings is None:
            return operation(group or (dist.group.WORLD if dist.is_initialized() else None))
        others = sorted(set(self.agents if partners is None else partners) - {self.agent})
        if not others:
            return operation(group)

        def compared() -> T:
            digest = hashlib.sha256(what.encode()).digest()[:7]
            own = torch.tensor([int.from_bytes(digest, "big")])
            parts = {other: torch.empty_like(own) for other in others}
            if partners is None:
                gathered = [parts.get(agent, own.clone()) for agent in self.agents]
                group.allgather([gathered], [own]).wait(self.timeout)
            else:
                transfer_pairs(
                    group,
                    [(own, other, _HEADER_TAG) for other in others],
                    [(part, other, _HEADER_TAG) for other, part in parts.items()],
                    self.timeout,
                )
            if any(int(part) != int(own) for part in parts.values()):
                meetings.disagree(what, others)
            return operation(group)

        while_waiting = None if self._is_in_background() else self.while_waiting
        result = meetings.run(compared, what, others, while_waiting)
        self.ledger.add(self.agent, "control", 8 * len(others), len(others))
        return result

    def barrier(self, name: str | None = None) -> None:
        """Wait for the other agents; without meetings no header exchange does it."""
        if self.meetings is None and len(self.agents) > 1:
            started = perf_counter()
            devices = [torch.cuda.current_device()] if dist.get_backend() == "nccl" else None
            dist.barrier(device_ids=devices)
            self._record("control", 0, 1, started)
        else:
            super().barrier(name)

    def end(self, reason: str) -> None:
        """Report to the others why this agent takes part in nothing more."""
        if self.meetings is not None:
            self.meetings.end(reason)

    def drop(self, failed: Mapping[int, str]) -> None:
        """End the run on all agents.

        Raises:
            RuntimeError: Always.
        """
        reasons = "; ".join(f"agent {agent} has {why}" for agent, why in sorted(failed.items()))
        raise RuntimeError(f"decentralized training cannot continue: {reasons}")

    def broadcast_object(self, value: Any, source: int) -> Any:
        """Return the ``value`` of agent ``source``: plain data, tensors and paths."""
        if len(self.agents) == 1:
            return value
        content = packed(value) if self.agent == source else b""
        uses_nccl = self._group is None and dist.get_backend() == "nccl"
        device = torch.device("cuda", torch.cuda.current_device()) if uses_nccl else "cpu"
        parts = self.gather_bytes(content, torch.device(device))
        return value if self.agent == source else unpacked(parts[self.agents.index(source)])
