"""What communication cost: bytes, messages, rounds and waiting time by agent and kind."""

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
"""Sharing the initial weights, as DDP does too; mixing during training; the merge at its end; the
merge that a checkpoint holds; what is only measured; barriers, votes, flags and logged means."""


@dataclass(frozen=True)
class Traffic:
    """What one agent sent.

    Attributes:
        bytes_sent: payload handed to the transport, without its own headers.
        messages: transfers between two agents.
        rounds: how often the agent took part.
        waiting_seconds: time in which it did nothing but communicate.
    """

    bytes_sent: int = 0
    messages: int = 0
    rounds: int = 0
    waiting_seconds: float = 0.0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


class CommLedger:
    """Keeps the books on communication, for one agent or for many.

    Each process of a real run books its own agent; :meth:`merged` puts the books together.

    Example::

        ledger.total("gossip").bytes_sent / ring_all_reduce_bytes(model_bytes, 4) / steps
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[int, str], Traffic] = {}
        self.dropped: list[dict[str, Any]] = []
        """Agents that the others went on without: ``{"agent", "step", "reason"}``."""

    def book(
        self,
        agent: int,
        kind: str,
        bytes_sent: int = 0,
        messages: int = 0,
        waiting_seconds: float = 0.0,
    ) -> None:
        """Add one round of ``kind`` to the account of ``agent``.

        Raises:
            ValueError: a kind that is not in ``KINDS``.
        """
        if kind not in KINDS:
            raise ValueError(f"kind={kind!r}: expected one of {', '.join(KINDS)}")
        booked = self._entries.get((agent, kind), Traffic())
        self._entries[agent, kind] = booked + Traffic(bytes_sent, messages, 1, waiting_seconds)

    def of(self, agent: int, kind: str) -> Traffic:
        """The account of ``agent`` for ``kind``."""
        return self._entries.get((agent, kind), Traffic())

    def total(self, *kinds: str) -> Traffic:
        """The sum over agents, of ``kinds`` or of everything."""
        chosen = kinds or KINDS
        booked = (entry for (_, kind), entry in self._entries.items() if kind in chosen)
        return sum(booked, Traffic())

    @property
    def agents(self) -> list[int]:
        """The agents with an account."""
        return sorted({agent for agent, _ in self._entries})

    def state_dict(self) -> dict[str, Any]:
        """All accounts as plain data."""
        return {
            "entries": [
                [agent, kind, *astuple(entry)]
                for (agent, kind), entry in sorted(self._entries.items())
            ],
            "dropped": [dict(one) for one in self.dropped],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the accounts of ``state``."""
        self._entries = {
            (agent, kind): Traffic(*values) for agent, kind, *values in state["entries"]
        }
        self.dropped = [dict(one) for one in state["dropped"]]

    @classmethod
    def merged(cls, states: Iterable[dict[str, Any]]) -> "CommLedger":
        """One ledger of the states of several, each with the accounts of its own agents."""
        merged = cls()
        for state in states:
            part = cls()
            part.load_state_dict(state)
            merged._entries |= part._entries
            merged.dropped += [one for one in part.dropped if one not in merged.dropped]
        return merged

    def report(self, model_bytes: int, steps: int, num_agents: int) -> dict[str, Any]:
        """Plain data: every account, and training's bytes against DDP's for the same steps.

        What is only measured or saved is left out of the comparison, and said beside it.

        Args:
            model_bytes: size of the gradients that DDP would all-reduce.
            steps: optimizer steps.
            num_agents: processes.
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
    """What each agent sends in a ring all-reduce: ``2 (n-1)/n`` of the payload.

    Source: Patarasu and Yuan, Bandwidth Optimal All-reduce Algorithms for Clusters of
    Workstations, J. Parallel Distrib. Comput. 69 (2009). DDP does one a step.
    """
    return 2 * (num_agents - 1) / num_agents * payload_bytes


def write_report(
    ledger: CommLedger, module: LightningModule, steps: int, num_agents: int
) -> dict[str, Any]:
    """Write ``communication.json`` of all agents' books, on the first agent.

    Returns:
        What it holds: :meth:`CommLedger.report`.
    """
    trainer = module.trainer
    model_bytes = sum(tensor.nbytes for tensor in communicated_parameters(module).values())
    report = ledger.report(model_bytes, steps, num_agents)
    folder = trainer.log_dir  # asks the other agents, so all of them come here
    if trainer.is_global_zero and folder is not None:
        text = json.dumps(report, indent=2) + "\n"
        write_text_atomically(Path(folder) / REPORT_NAME, text)
    return report
