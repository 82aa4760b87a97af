"""Agents that go on without those that are lost."""

import io
import json
import os
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed import PrefixStore, ProcessGroupGloo, Store, TCPStore
from torchmetrics import Metric

from lightning_plugins.strategies.ledger import CommLedger
from lightning_plugins.strategies.peers import Peers

T = TypeVar("T")

STORE_VARIABLE = "LIGHTNING_PLUGINS_STORE"
_ATTEMPTS = 3
_START_SECONDS = 120.0


class DroppedError(RuntimeError):
    """The other agents went on without this one."""


class FaultTolerantPeers(Peers):
    """The agents that live, agreed on after each operation through a store outside of them.

    An operation is tried on a gloo group of the living. Each agent then posts whether it went well
    and waits for the posts of the others; those that do not post in time are lost. The first to
    know writes the decision with one atomic compare-and-set, and all follow what is written. Where
    an agent was lost, or an operation failed, the living form a new group and try again; nothing
    is committed before all agree. Whoever finds itself lost raises, and keeps its own weights.

    Sources: two-phase commit of a merge as in torchft's ``should_commit``; membership by an
    external store as in its lighthouse.

    Args:
        agent: this one.
        ledger: where traffic and losses are booked.
        timeout: of a transfer; who is silent for twice as long is lost.
        store: that outlives any agent.
        num_agents: at the start.
        min_agents: with fewer left, the run ends.
        backend: of the groups; gloo alone survives a lost agent.

    Raises:
        ValueError: another backend.
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
    ) -> None:
        super().__init__(agent, ledger, timeout)
        if backend != "gloo":
            raise ValueError(
                f"process_group_backend={backend!r}: on_peer_failure='drop' needs gloo, because a "
                "failed NCCL communicator takes its process down; set process_group_backend='gloo' "
                "and keep the model on the CPU, or on_peer_failure='raise'"
            )
        self.steps = 0
        """Optimizer steps taken; losses are booked with it."""
        self._store = store
        self._agents = tuple(range(num_agents))
        self._min_agents = min_agents
        self._operations = 0
        self._groups = 0
        self._group: Any = None
        self._posted: list[list[str]] = []

    @property
    def agents(self) -> tuple[int, ...]:
        """Those that live."""
        return self._agents

    def perform(self, operation: Callable[[Any], T]) -> T:
        """Run ``operation`` until all living agents have done it.

        Raises:
            DroppedError: the others went on without this one.
            RuntimeError: too few agents are left, or it failed again and again.
        """
        if not self._operations:
            # Agents import and read data at their own pace before they first meet.
            self._all_agree(True, max(_START_SECONDS, 2 * self.timeout.total_seconds()))
        for _ in range(_ATTEMPTS + len(self._agents)):
            result, failure = None, None
            try:
                result = operation(self._connected_group())
            except (RuntimeError, TimeoutError) as error:
                failure = error
            if self._all_agree(failure is None, 2 * self.timeout.total_seconds()):
                return result  # type: ignore[return-value]
            self._group = None
        raise RuntimeError(
            f"agents {list(self._agents)} live, and still an operation among them fails"
        ) from failure

    def lose(self, ill: Mapping[int, str]) -> None:
        """Go on without the agents of ``ill``; all agents know them from the same reports."""
        self._go_on_with([agent for agent in self._agents if agent not in ill], ill)

    def broadcast_object(self, value: Any, source: int) -> Any:
        """The ``value``, plain data, of agent ``source``, or of the first one where it is gone."""
        key = f"object/{self._operations}"

        def through_the_store(group: Any) -> Any:
            speaker = source if source in self._agents else self._agents[0]
            if self.agent == speaker:
                content = io.BytesIO()
                torch.save(value, content)
                self._store.set(f"{key}/{speaker}", content.getvalue())  # type: ignore[arg-type]
                return value
            self._store.wait([f"{key}/{speaker}"], self.timeout)
            content = io.BytesIO(self._store.get(f"{key}/{speaker}"))
            return torch.load(content, weights_only=True)

        return self.perform(through_the_store)

    def barrier(self) -> None:
        """Wait for the living."""
        started = time.perf_counter()
        self.perform(lambda group: None)
        self._book("control", 0, 1, started)

    def reduce_metrics_of(self, module: nn.Module) -> None:
        """Let the torchmetrics of ``module`` reduce over the living, no group that torch knows."""

        def gather(tensor: Tensor, group: Any = None) -> list[Tensor]:
            return self.gather(tensor)

        for part in module.modules():
            if isinstance(part, Metric) and part.dist_sync_fn is None:
                part.dist_sync_fn = gather
                part.distributed_available_fn = lambda: True

    def _connected_group(self) -> Any:
        if self._group is None:
            store = PrefixStore(f"group/{self._groups}", self._store)
            self._groups += 1
            place = self._agents.index(self.agent)
            group = ProcessGroupGloo(store, place, len(self._agents), timeout=self.timeout)
            self._group = group
        return self._group

    def _all_agree(self, went_well: bool, patience_seconds: float) -> bool:
        """Whether the operation is done; where not, who lives is settled anew."""
        self._operations += 1
        key = f"vote/{self._operations}"
        if self._store.check([f"lost/{self.agent}"]):
            raise DroppedError(self._told_to_the_lost())
        self._store.set(f"{key}/{self.agent}", "1" if went_well else "0")
        posted = self._wait_for_posts(key, patience_seconds)
        votes = [self._store.get(f"{key}/{agent}") == b"1" for agent in posted]
        proposal = {"agents": posted, "done": all(votes) and posted == list(self._agents)}
        decided = json.loads(self._store.compare_set(f"{key}/decision", "", json.dumps(proposal)))
        self._forget_old_posts(key)
        if self.agent not in decided["agents"]:
            raise DroppedError(self._told_to_the_lost())
        if decided["agents"] != list(self._agents):
            self._go_on_with(decided["agents"], {})
        return decided["done"]

    def _wait_for_posts(self, key: str, patience_seconds: float) -> list[int]:
        deadline = time.monotonic() + patience_seconds
        posted, awaited = {self.agent}, set(self._agents) - {self.agent}
        pause_seconds = 0.0002
        while awaited:
            arrived = {a for a in awaited if self._store.check([f"{key}/{a}"])}
            dead = {a for a in awaited - arrived if self._store.check([f"dead/{a}"])}
            posted |= arrived
            awaited -= arrived | dead
            if time.monotonic() > deadline:
                break
            # Not Store.wait, which would not hear of a death, and complains at each timeout.
            time.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, 0.05)
        return sorted(posted)

    def _go_on_with(self, survivors: list[int], reasons: Mapping[int, str]) -> None:
        for agent in set(self._agents) - set(survivors):
            reason = reasons.get(agent, "silence")
            self.ledger.dropped.append({"agent": agent, "step": self.steps, "reason": reason})
            self._store.set(f"lost/{agent}", reason)
        if self.agent not in survivors:
            raise DroppedError(self._told_to_the_lost())
        if len(survivors) < self._min_agents:
            raise RuntimeError(
                f"agents {survivors} are left, and min_agents={self._min_agents}: the run ends "
                "here; resume it from its last checkpoint"
            )
        self._agents = tuple(survivors)
        self._group = None

    def _forget_old_posts(self, key: str) -> None:
        self._posted.append([f"{key}/{agent}" for agent in self._agents] + [f"{key}/decision"])
        if len(self._posted) > 4:
            old = self._posted.pop(0)
            if self.is_first:
                for name in old:
                    self._store.delete_key(name)

    def _told_to_the_lost(self) -> str:
        return (
            f"the other agents went on without agent {self.agent}, which was silent for more than "
            f"{2 * self.timeout.total_seconds():g} s or had weights that they could not take"
        )


def meeting_point(timeout: timedelta) -> Store:
    """The store that the supervisor hosts.

    Raises:
        ValueError: this process was not started by one.
    """
    address = os.environ.get(STORE_VARIABLE)
    if address is None:
        raise ValueError(
            "on_peer_failure='drop' needs a process outside of the agents that holds the list of "
            "the living, and a launcher that does not end all when one dies; start the run as "
            "`python -m lightning_plugins.strategies.supervisor 4 -m lightning_plugins fit ...` or "
            "with examples/slurm_decentralized.sh"
        )
    host, _, port = address.rpartition(":")
    return TCPStore(host, int(port), is_master=False, timeout=timeout)


def host_meeting_point(port: int = 0) -> TCPStore:
    """Host the store in this process; ``port`` 0 takes a free one."""
    return TCPStore("0.0.0.0", port, is_master=True, wait_for_workers=False)
