"""Waiting for other agents: with a bounded time, and with an error when agents disagree."""

import itertools
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from datetime import timedelta
from queue import SimpleQueue
from typing import Any, TypeVar

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch.distributed import PrefixStore, ProcessGroupGloo, Store, TCPStore

T = TypeVar("T")

RENDEZVOUS_SECONDS = 900.0
POLL_SECONDS = 1.0
_PROGRESS_SECONDS = 15.0


class DisagreementError(RuntimeError):
    """Agents reached different operations, so none of them can continue."""


class Meetings:
    """Runs the operations of one agent and compares them with those of the agents it waits for.

    An operation runs in a thread of its own, so that this process can handle signals meanwhile. An
    agent that waits for more than a second publishes its operation in the store and reads those of
    the agents that it needs. If two agents wait for each other at different operations, or an agent
    has ended, both raise an error at once. Nothing is published while agents meet in time.

    Args:
        agent: Number of this agent.
        store: A store that all agents share.
        timeout: Timeout of an operation.
    """

    def __init__(self, agent: int, store: Store, timeout: timedelta) -> None:
        self.agent = agent
        self.store: Any = store
        self.timeout = timeout
        self.details: Callable[[], dict[str, Any]] = dict
        """Returns plain data that explains a disagreement, such as the names of logged values."""
        self._common: Counter[int] = Counter()
        self._worker = Worker()

    def run(
        self,
        operation: Callable[[], T],
        what: str,
        others: Collection[int],
        while_waiting: Callable[[], None] | None = None,
    ) -> T:
        """Run ``operation``, which needs the agents ``others``.

        Args:
            operation: The transfer.
            what: What the operation does, in words; the same on all agents that take part.
            others: The agents that take part, without this one.
            while_waiting: Called about once per second.

        Raises:
            DisagreementError: Another agent waits at a different operation, or has ended.
            RuntimeError: The operation failed.
        """
        outcome = self._worker.start(operation)
        deadline = time.monotonic() + self.timeout.total_seconds() + POLL_SECONDS
        is_published = False
        while not outcome.done.wait(POLL_SECONDS):
            is_published = True
            self._publish(what, others)
            self._compare(what, others)
            if while_waiting is not None:
                while_waiting()
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"agent {self.agent} waited {self.timeout.total_seconds():g} s for agents "
                    f"{sorted(others)} at: {what}; increase timeout_seconds if they are slower"
                )
        if outcome.error is not None:
            # A broken connection is often the consequence of an error that the other published.
            self._explain(others, outcome.error)
            raise outcome.error
        self._common.update(others)
        if is_published:
            self.store.set(f"at/{self.agent}", "")
        return outcome.result

    def end(self, reason: str) -> None:
        """Publish that this agent takes part in nothing more."""
        try:
            self.store.set(f"ended/{self.agent}", reason)
        except RuntimeError:  # the agent that hosts the store ended first
            return

    def disagree(self, what: str, others: Collection[int]) -> None:
        """Raise the error of agents that met at different operations.

        Raises:
            DisagreementError: Always.
        """
        self._publish(what, others)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            for other in others:
                record = self._record_of(other)
                if record is not None and record["what"] != what:
                    self._raise_difference(what, other, record)
            time.sleep(0.05)
        raise DisagreementError(
            f"agents {sorted(others)} reached other operations than agent {self.agent}, which is "
            f"at: {what}"
        )

    def _publish(self, what: str, others: Collection[int]) -> None:
        record = {
            "what": what,
            "others": {str(other): self._common[other] for other in others},
            "details": self.details(),
        }
        try:
            self.store.set(f"at/{self.agent}", json.dumps(record))
        except RuntimeError:
            return

    def _compare(self, what: str, others: Collection[int]) -> None:
        for other in others:
            self._raise_if_ended(other, what)
            record = self._record_of(other)
            # Another number of common operations: one of the two is only behind.
            if record is None or record["others"].get(str(self.agent)) != self._common[other]:
                continue
            if record["what"] != what:
                self._raise_difference(what, other, record)

    def _raise_difference(self, what: str, other: int, record: dict[str, Any]) -> None:
        raise DisagreementError(
            f"agents reached different operations: agent {self.agent} at: {what}; agent {other} "
            f"at: {record['what']}{self._difference(other, record['details'])}. All agents must "
            "take the same number of steps, log the same values, and stop at the same step"
        )

    def _explain(self, others: Collection[int], error: Exception) -> None:
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            for other in others:
                try:
                    self._raise_if_ended(other, str(error).splitlines()[0][:200])
                except DisagreementError as explained:
                    raise explained from error
            time.sleep(0.2)

    def _raise_if_ended(self, other: int, what: str) -> None:
        reason = self._get(f"ended/{other}")
        if reason:
            raise DisagreementError(
                f"agent {other} {reason}, and agent {self.agent} waited for it at: {what}"
            )

    def _record_of(self, other: int) -> dict[str, Any] | None:
        text = self._get(f"at/{other}")
        return json.loads(text) if text else None

    def _get(self, key: str) -> str:
        try:
            return self.store.get(key).decode() if self.store.check([key]) else ""
        except RuntimeError:
            return ""

    def _difference(self, other: int, details: dict[str, Any]) -> str:
        own = self.details()
        parts = []
        for name in own.keys() & details.keys():
            mine, theirs = own[name], details[name]
            if isinstance(mine, list) and isinstance(theirs, list):
                only = [sorted(set(mine) - set(theirs)), sorted(set(theirs) - set(mine))]
                for agent, values in zip((self.agent, other), only, strict=True):
                    if values:
                        parts.append(f"{name} only on agent {agent}: {', '.join(values)}")
            elif mine != theirs:
                parts.append(f"{name} {mine} on agent {self.agent}, {theirs} on agent {other}")
        return f" ({'; '.join(sorted(parts))})" if parts else ""


class Outcome:
    """The result or the error of an operation, once it is done."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.result: Any = None
        self.error: Exception | None = None

    @classmethod
    def of(cls, result: Any) -> "Outcome":
        """Return the outcome of an operation that is done."""
        outcome = cls()
        outcome.result = result
        outcome.done.set()
        return outcome


class Worker:
    """Runs operations in a thread, because a process that waits in one cannot handle signals."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue | None = None

    def start(self, operation: Callable[[], Any]) -> Outcome:
        """Start ``operation`` after those that were started before."""
        if self._jobs is None:
            self._jobs = SimpleQueue()
            # A daemon: a process whose peers are gone must be able to exit.
            threading.Thread(target=_work, args=(self._jobs,), daemon=True).start()
        outcome = Outcome()
        self._jobs.put((operation, outcome))
        return outcome


def _work(jobs: SimpleQueue) -> None:
    while True:
        operation, outcome = jobs.get()
        try:
            with torch.no_grad():  # a thread does not inherit it
                outcome.result = operation()
        except Exception as error:
            outcome.error = error
        outcome.done.set()
        del operation, outcome


_connections = itertools.count()


def connect_to_first_agent(
    address: str, port: int, agent: int, num_agents: int, whose: str = ""
) -> Store:
    """Connect to the store that the first agent, or torchrun, hosts, and wait for all agents.

    Agents may start at different times, because they import packages and read data at different
    speeds. The time to wait is therefore independent of the timeout of transfers.

    Raises:
        RuntimeError: An agent did not connect within 15 minutes.
    """
    patience = timedelta(seconds=RENDEZVOUS_SECONDS)
    is_hosted = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = TCPStore(
        address,
        port,
        is_master=agent == 0 and not is_hosted,
        timeout=patience,
        wait_for_workers=False,
        multi_tenant=True,  # a Trainer with another strategy may use the port before or after
    )
    # torchrun's store outlives a restart of the processes; a process may connect several times.
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    own = PrefixStore(f"lightning_plugins/{restart}/{next(_connections)}", store)
    rendezvous(own, agent, num_agents, whose)
    return own


def gloo_group(store: Store, agent: int, num_agents: int, timeout: timedelta) -> ProcessGroupGloo:
    """Create a group of all agents; connecting may take longer than a transfer."""
    slow = max(timeout, timedelta(seconds=120))
    return ProcessGroupGloo(PrefixStore("group", store), agent, num_agents, timeout=slow)


def rendezvous(store: Store, agent: int, num_agents: int, whose: str = "") -> None:
    """Wait until all agents have connected to ``store``; print who is missing.

    Args:
        store: A store that all agents share.
        agent: Number of this agent, or place of this process.
        num_agents: Number of agents, or of processes.
        whose: The agent whose processes connect, if they are not agents.

    Raises:
        RuntimeError: An agent did not connect within 15 minutes.
    """
    who = f"{whose} processes" if whose else "agents"
    store.set(f"here/{agent}", "1")
    started = last = time.monotonic()
    missing = set(range(num_agents)) - {agent}
    while missing:
        missing = {other for other in missing if not store.check([f"here/{other}"])}
        now = time.monotonic()
        if missing and now > started + RENDEZVOUS_SECONDS:
            raise RuntimeError(
                f"{who} {sorted(missing)} did not connect within {RENDEZVOUS_SECONDS:g} s; start "
                "all processes of the run, and check MASTER_ADDR and MASTER_PORT"
            )
        if missing and now > last + _PROGRESS_SECONDS:
            last = now
            rank_zero_info(
                f"{num_agents - len(missing)} of {num_agents} {who} have connected; waiting for "
                f"{sorted(missing)} since {now - started:.0f} s"
            )
        if missing:
            time.sleep(0.05)
