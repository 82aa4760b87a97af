"""Cost of communication: bytes, messages, rounds and waiting time, by agent and kind."""

import json
from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule

from lightning_plugins.reports.writer import write_text_atomically
from lightning_plugins.strategies.communicated_tensors import communicated_parameters

REPORT_NAME = "communication.json"

KINDS = ("start", "gossip", "merge", "checkpoint", "measurement", "control")
"""Kinds of traffic: copying the initial weights (as DDP does); gossip during training; merges;
averages for checkpoints; averages for measurements; barriers, votes, flags and logged means."""


@dataclass(frozen=True)
class Traffic:
    """Traffic of one agent.

    Attributes:
        bytes_sent: Payload sent, without the headers of the transport.
        messages: Number of transfers to another agent.
        rounds: Number of rounds in which the agent took part.
        waiting_seconds: Time spent in communication.
    """

    bytes_sent: int = 0
    messages: int = 0
    rounds: int = 0
    waiting_seconds: float = 0.0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


class CommLedger:
    """Records the traffic of one or many agents.

    In a real run each process records its own agent; :meth:`merged` joins the ledgers.

    Example::

        ledger.total("gossip").bytes_sent / ring_all_reduce_bytes(model_bytes, 4) / steps
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[int, str], Traffic] = {}
        self.dropped: list[dict[str, Any]] = []
        """The agents that were dropped: ``{"agent", "step", "reason"}``."""

    def record(
        self,
        agent: int,
        kind: str,
        bytes_sent: int = 0,
        messages: int = 0,
        waiting_seconds: float = 0.0,
    ) -> None:
        """Record one round of ``kind`` of ``agent``.

        Args:
            agent: Number of the agent.
            kind: One of ``KINDS``.
            bytes_sent: Payload in bytes.
            messages: Number of transfers.
            waiting_seconds: Time spent in the round.

        Raises:
            ValueError: ``kind`` is not in ``KINDS``.
        """
        if kind not in KINDS:
            raise ValueError(f"kind={kind!r}: expected one of {', '.join(KINDS)}")
        before = self._entries.get((agent, kind), Traffic())
        self._entries[agent, kind] = before + Traffic(bytes_sent, messages, 1, waiting_seconds)

    def add(self, agent: int, kind: str, bytes_sent: int, messages: int) -> None:
        """Add traffic to the rounds of ``kind`` that are recorded already or follow."""
        before = self._entries.get((agent, kind), Traffic())
        self._entries[agent, kind] = before + Traffic(bytes_sent, messages)

    def of(self, agent: int, kind: str) -> Traffic:
        """Return the traffic of ``agent`` of ``kind``."""
        return self._entries.get((agent, kind), Traffic())

    def total(self, *kinds: str) -> Traffic:
        """Sum the traffic of ``kinds``, or of all kinds, over agents."""
        chosen = kinds or KINDS
        entries = (entry for (_, kind), entry in self._entries.items() if kind in chosen)
        return sum(entries, Traffic())

    @property
    def agents(self) -> list[int]:
        """The agents with recorded traffic, in increasing order."""
        return sorted({agent for agent, _ in self._entries})

    def state_dict(self) -> dict[str, Any]:
        """Return all entries as plain data."""
        return {
            "entries": [
                [agent, kind, *astuple(entry)]
                for (agent, kind), entry in sorted(self._entries.items())
            ],
            "dropped": [dict(one) for one in self.dropped],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a :meth:`state_dict`."""
        self._entries = {
            (agent, kind): Traffic(*values) for agent, kind, *values in state["entries"]
        }
        self.dropped = [dict(one) for one in state["dropped"]]

    @classmethod
    def merged(cls, states: Iterable[dict[str, Any]]) -> "CommLedger":
        """Join the states of several ledgers.

        An agent of several processes has entries in several: their bytes and messages are added,
        and they took part in the same rounds.
        """
        merged = cls()
        for state in states:
            part = cls()
            part.load_state_dict(state)
            for key, own in part._entries.items():
                before = merged._entries.get(key, Traffic())
                merged._entries[key] = Traffic(
                    before.bytes_sent + own.bytes_sent,
                    before.messages + own.messages,
                    max(before.rounds, own.rounds),
                    max(before.waiting_seconds, own.waiting_seconds),
                )
            merged.dropped += [one for one in part.dropped if one not in merged.dropped]
        return merged

    def report(self, model_bytes: int, steps: int, num_agents: int) -> dict[str, Any]:
        """Return all entries and a comparison of training's bytes with DDP's, as plain data.

        The comparison counts the kinds gossip, merge and control. The others are listed separately.

        Args:
            model_bytes: Size of the gradients that DDP would all-reduce.
            steps: Number of optimizer steps.
            num_agents: Number of agents.
        """
        training = self.total("gossip", "merge", "control").bytes_sent
        ddp = steps * num_agents * ring_all_reduce_bytes(model_bytes, num_agents)
        busiest = max(
            (
                sum(self.of(agent, kind).bytes_sent for kind in ("gossip", "merge", "control"))
                for agent in self.agents
            ),
            default=0,
        )
        return {
            "agents": num_agents,
            "optimizer_steps": steps,
            "training_bytes": training,
            "training_bytes_of_busiest_agent": busiest,
            "ddp_bytes": round(ddp),
            "times_less_than_ddp": ddp / training if training else None,
            "by_kind": {kind: asdict(self.total(kind)) for kind in KINDS},
            "by_agent": {
                str(agent): {kind: asdict(self.of(agent, kind)) for kind in KINDS}
                for agent in self.agents
            },
            "dropped": self.dropped,
        }


def ring_all_reduce_bytes(payload_bytes: int, num_agents: int) -> float:
    """Compute the bytes that each agent sends in a ring all-reduce: ``2 (n-1)/n`` of the payload.

    Source: Patarasu and Yuan, Bandwidth Optimal All-reduce Algorithms for Clusters of
    Workstations, J. Parallel Distrib. Comput. 69 (2009). DDP does one per step.
    """
    return 2 * (num_agents - 1) / num_agents * payload_bytes


def write_report(
    ledger: CommLedger, module: LightningModule, steps: int, num_agents: int
) -> dict[str, Any]:
    """Write :meth:`CommLedger.report` to ``communication.json`` in the log folder.

    All agents must call it; the first one writes the file.

    Returns:
        The report.
    """
    trainer = module.trainer
    model_bytes = sum(tensor.nbytes for tensor in communicated_parameters(module).values())
    report = ledger.report(model_bytes, steps, num_agents)
    folder = trainer.log_dir  # a collective call, so every agent must reach it
    if trainer.is_global_zero and folder is not None:
        text = json.dumps(report, indent=2) + "\n"
        write_text_atomically(Path(folder) / REPORT_NAME, text)
    return report
