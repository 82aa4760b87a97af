"""Peers that continue without failed agents."""

import json
import os
import socket
import time
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from torch.distributed import PrefixStore, ProcessGroupGloo, Store, TCPStore

from lightning_plugins.strategies.booked_store import BookedStore
from lightning_plugins.strategies.ledger import CommLedger
from lightning_plugins.strategies.meetings import POLL_SECONDS, Worker
from lightning_plugins.strategies.packing import packed, unpacked
from lightning_plugins.strategies.peers import Peers

T = TypeVar("T")

STORE_VARIABLE = "LIGHTNING_PLUGINS_STORE"
_ATTEMPTS = 3
_START_SECONDS = 120.0
_LONGEST_PAUSE_SECONDS = 0.05


class DroppedError(RuntimeError):
    """The other agents continued without this one."""


class FaultTolerantPeers(Peers):
    """The remaining agents, which agree after each operation through an external store.

    An operation runs on a gloo group of the remaining agents. Each agent then writes a vote to the
    store, success or failure, and waits for the votes of the others. An agent that does not vote in
    time has failed. The first agent to know the result writes the decision with an atomic
    compare-and-set, and all agents follow the stored decision. If an agent has failed or the
    operation did not succeed, the remaining agents form a new group and retry; nothing is committed
    before all agree. A dropped agent raises :class:`DroppedError` and keeps its own weights.

    Sources: two-phase commit of a merge as in torchft's ``should_commit``; membership in an
    external store as in its lighthouse.

    Args:
        agent: Number of this agent.
        ledger: The ledger that records traffic and dropped agents.
        timeout: Timeout of a transfer; an agent that does not respond for twice as long is dropped.
        store: A store in a process that outlives the agents.
        num_agents: Number of agents at the start.
        min_agents: The run ends when fewer agents remain.
        backend: Backend of the process groups; only gloo survives a lost agent.
        place: Place of this process in its agent, from 0.
        places: Number of processes of an agent. An agent has voted when all of them have, so all
            places commit the same operations.

    Raises:
        ValueError: ``backend`` is not ``gloo``.
    """

    can_drop = True

    def __init__(
        self,
        agent: int,
        ledger: CommLedger,
        timeout: timedelta,
        store: Store,
        num_agents: int,
        min_agents: int = 1,
        backend: str = "gloo",
        place: int = 0,
        places: int = 1,
    ) -> None:
        super().__init__(agent, ledger, timeout)
        self._place = place
        self._places = range(places)
        if backend != "gloo":
            raise ValueError(
                f"process_group_backend={backend!r}: on_peer_failure='drop' requires gloo, because "
                "a failed NCCL communicator aborts its process; set process_group_backend='gloo' "
                "and keep the model on the CPU, or set on_peer_failure='raise'"
            )
        self._store = self._booked(store)
        self._agents = tuple(range(num_agents))
        self._min_agents = min_agents
        self._operations = 0
        self._groups = 0
        self._group: Any = None
        self._voted: list[list[str]] = []
        self._worker = Worker()

    @property
    def agents(self) -> tuple[int, ...]:
        """The remaining agents, in increasing order."""
        return self._agents

    def perform(
        self,
        operation: Callable[[Any], T],
        what: str = "a collective operation",
        partners: Collection[int] | None = None,
    ) -> T:
        """Retry ``operation`` until it succeeds on all remaining agents.

        Raises:
            DroppedError: The other agents continued without this one.
            RuntimeError: Too few agents remain, or every attempt failed.
        """
        if not self._operations:
            # Before the first operation, agents import modules and read data at different speeds.
            self._all_agree(True, max(_START_SECONDS, 2 * self.timeout.total_seconds()))
        for _ in range(_ATTEMPTS + len(self._agents)):
            result, failure = self._attempt(operation)
            if self._all_agree(failure is None, 2 * self.timeout.total_seconds()):
                return result  # type: ignore[return-value]
            self._group = None
        raise RuntimeError(
            f"agents {list(self._agents)} respond, but a collective operation keeps failing; "
            "check the network, or resume from the last checkpoint"
        ) from failure

    def _attempt(self, operation: Callable[[Any], T]) -> tuple[T | None, Exception | None]:
        outcome = self._worker.start(lambda: operation(self._connected_group()))
        while not outcome.done.wait(POLL_SECONDS):
            if self.while_waiting is not None:
                self.while_waiting()
        if outcome.error is not None and not isinstance(outcome.error, RuntimeError | TimeoutError):
            raise outcome.error
        return outcome.result, outcome.error

    @property
    def store(self) -> BookedStore:
        """The store that the supervisor hosts."""
        return self._store

    def drop(self, failed: Mapping[int, str]) -> None:
        """Continue without the agents in ``failed``; all agents must pass the same ones."""
        self._continue_with([agent for agent in self._agents if agent not in failed], failed)

    def broadcast_object(self, value: Any, source: int) -> Any:
        """Return the plain ``value`` of agent ``source``, or of the first if that was dropped."""
        key = f"object/{self._operations}/{self._place}"

        def through_the_store(group: Any) -> Any:
            source_agent = source if source in self._agents else self._agents[0]
            if self.agent == source_agent:
                self._store.set(f"{key}/{source_agent}", packed(value))
                return value
            self._store.wait([f"{key}/{source_agent}"], self.timeout)
            return unpacked(self._store.get(f"{key}/{source_agent}"))

        return self.perform(through_the_store)

    def _connected_group(self) -> Any:
        if self._group is None:
            store = PrefixStore(f"group/{self._groups}/{self._place}", self._store.plain)
            self._groups += 1
            place = self._agents.index(self.agent)
            group = ProcessGroupGloo(store, place, len(self._agents), timeout=self.timeout)
            self._group = group
        return self._group

    def _all_agree(self, succeeded: bool, timeout_seconds: float) -> bool:
        """Whether the operation succeeded on all agents; drops agents that did not vote."""
        self._operations += 1
        key = f"vote/{self._operations}"
        if self._store.check([f"dropped/{self.agent}"]):
            raise DroppedError(self._dropped_message())
        self._store.set(f"{key}/{self.agent}/{self._place}", "1" if succeeded else "0")
        voted = self._wait_for_votes(key, timeout_seconds)
        cast = self._store.multi_get([vote for a in voted for vote in self._votes_of(key, a)])
        votes = [vote == b"1" for vote in cast]
        proposal = {"agents": voted, "done": all(votes) and voted == list(self._agents)}
        decided = json.loads(self._store.compare_set(f"{key}/decision", "", json.dumps(proposal)))
        self._delete_old_votes(key)
        if self.agent not in decided["agents"]:
            raise DroppedError(self._dropped_message())
        if decided["agents"] != list(self._agents):
            self._continue_with(decided["agents"], {})
        return decided["done"]

    def _wait_for_votes(self, key: str, timeout_seconds: float) -> list[int]:
        deadline = time.monotonic() + timeout_seconds
        voted, awaited = set[int](), set(self._agents)
        if len(self._places) == 1:
            voted, awaited = {self.agent}, awaited - {self.agent}
        pause_seconds, last = 0.0002, time.monotonic()
        while awaited:
            every = [vote for a in awaited for vote in self._votes_of(key, a)]
            if self._store.check(every):  # one request for all
                voted |= awaited
                break
            is_late = time.monotonic() > deadline
            if is_late or pause_seconds >= _LONGEST_PAUSE_SECONDS:
                arrived = {a for a in awaited if self._store.check(self._votes_of(key, a))}
                voted |= arrived
                awaited -= arrived
                awaited -= {a for a in awaited if self._has_exited(a)}
            if is_late:
                break
            if self.while_waiting is not None and time.monotonic() > last + POLL_SECONDS:
                last = time.monotonic()
                self.while_waiting()
            # Store.wait would not notice an exited agent, and logs a warning at each timeout.
            time.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
        return sorted(voted)

    def _votes_of(self, key: str, agent: int) -> list[str]:
        return [f"{key}/{agent}/{place}" for place in self._places]

    def _has_exited(self, agent: int) -> bool:
        return self._store.check([f"exited/{agent}"]) or self._store.check([f"ended/{agent}"])

    def _continue_with(self, remaining: list[int], reasons: Mapping[int, str]) -> None:
        for agent in set(self._agents) - set(remaining):
            reason = reasons.get(agent) or self._reason_of_exit(agent)
            self.ledger.dropped.append({"agent": agent, "step": self.steps, "reason": reason})
            self._store.set(f"dropped/{agent}", reason)
        if self.agent not in remaining:
            raise DroppedError(self._dropped_message())
        if len(remaining) < self._min_agents:
            raise RuntimeError(
                f"agents {remaining} remain, and min_agents={self._min_agents}: the run ends; "
                "resume it from the last checkpoint"
            )
        self._agents = tuple(remaining)
        self._group = None

    def _reason_of_exit(self, agent: int) -> str:
        """Return what the agent or its supervisor reported, if it did not only become silent."""
        for key in (f"ended/{agent}", f"exited/{agent}"):
            if self._store.check([key]):
                return self._store.get(key).decode()
        return "no response"

    def end(self, reason: str) -> None:
        """Report why this agent takes part in nothing more."""
        try:
            self._store.set(f"ended/{self.agent}", reason)
        except RuntimeError:  # the store's process ended first
            return

    def _delete_old_votes(self, key: str) -> None:
        votes = [vote for agent in self._agents for vote in self._votes_of(key, agent)]
        self._voted.append([*votes, f"{key}/decision"])
        if len(self._voted) > 4:
            old = self._voted.pop(0)
            if self.is_first and self._place == 0:
                for name in old:
                    self._store.delete_key(name)

    def _dropped_message(self) -> str:
        return (
            f"the other agents continued without agent {self.agent}, which did not respond for "
            f"{2 * self.timeout.total_seconds():g} s or had weights that are not finite or of "
            "another shape"
        )


def connect_to_store(timeout: timedelta) -> Store:
    """Connect to the store that the supervisor hosts.

    Raises:
        ValueError: The environment has no address of a store, or an invalid one.
    """
    address = os.environ.get(STORE_VARIABLE)
    if address is None:
        raise ValueError(
            "on_peer_failure='drop' requires a separate process that hosts the list of remaining "
            "agents, and a launcher that keeps them running when one fails; start the run with "
            "`python -m lightning_plugins.strategies.supervisor 4 -m lightning_plugins fit ...` or "
            "with examples/slurm_decentralized.sh"
        )
    place, _, secret = address.partition("/")
    host, _, port = place.rpartition(":")
    if not (host and port.isdecimal()):
        raise ValueError(f"{STORE_VARIABLE}: expected ADDRESS:PORT, or ADDRESS:PORT/SECRET")
    store = TCPStore(host, int(port), is_master=False, timeout=timeout)
    return PrefixStore(secret, store) if secret else store


def host_store(port: int = 0, host: str = "127.0.0.1") -> TCPStore:
    """Host the store in this process.

    Args:
        port: Port; 0 chooses a free one.
        host: Address of the network interface to listen on; other machines cannot reach the
            default. ``0.0.0.0`` means all interfaces.
    """
    # TCPStore itself listens on all interfaces.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=1024) as listener:
        return TCPStore(
            host,
            listener.getsockname()[1],
            is_master=True,
            wait_for_workers=False,
            master_listen_fd=os.dup(listener.fileno()),
        )
