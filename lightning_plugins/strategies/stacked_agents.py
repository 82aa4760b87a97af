"""Communication of many agents in one process, on matrices with one row per agent."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_plugins.strategies.communicated_tensors import are_finite, mixed
from lightning_plugins.strategies.communication import Communication, Round
from lightning_plugins.strategies.ledger import CommLedger, ring_all_reduce_bytes
from lightning_plugins.strategies.outer_optimizer import OuterState
from lightning_plugins.strategies.topologies import MixingPlan
from lightning_plugins.strategies.wire import ErrorFeedback, Wire, WireName, encoded_mean, shares


class StackedAgents:
    """Gossips and merges the rows of matrices in place.

    The ledger records the bytes that real agents would send.

    Args:
        rows: Matrices ``(agents, numel)`` of parameters, one per dtype.
        communication: The topology and the schedule.
        ledger: The ledger that records the traffic.
        wire: Format of the tensors that agents exchange in gossip.
        overlap: Add the change of a round just before the next round or merge, as agents do that
            gossip in the background.

    Raises:
        ValueError: The schedule has meetings by time.
    """

    def __init__(
        self,
        rows: Sequence[Tensor],
        communication: Communication,
        ledger: CommLedger,
        wire: WireName = "weights",
        overlap: bool = False,
    ) -> None:
        if communication.schedule.every is not None:
            raise ValueError(
                f"every={communication.schedule.every!r}: simulated agents all take the same "
                "steps; set every_n_steps, or use strategy='decentralized'"
            )
        self.rows = list(rows)
        self.communication = communication
        self.ledger = ledger
        self.wire = Wire(wire)
        self.overlap = overlap
        self._changes: list[Tensor] | None = None
        self._feedback = ErrorFeedback()
        self.steps_at_merge: int | None = None
        self.num_agents = len(self.rows[0])
        initial = {str(index): matrix[0] for index, matrix in enumerate(self.rows)}
        self._outer = OuterState(communication.outer, initial) if communication.outer else None
        is_adaptive = communication.schedule.shape == "adaptive"
        self._reference = [matrix.clone() for matrix in self.rows] if is_adaptive else None

    def after_step(
        self, steps: int, total_steps: float, extra_matrices: Sequence[Tensor] = ()
    ) -> Round | None:
        """Gossip or merge if the schedule has a round after ``steps`` optimizer steps.

        Args:
            steps: Optimizer steps that each agent has taken.
            total_steps: Optimizer steps of the run; infinity if it has no known end.
            extra_matrices: Other matrices ``(agents, numel)`` to mix, such as buffers.

        Returns:
            The round that took place, or None.

        Raises:
            RuntimeError: An agent's weights are not finite.
        """
        round_ = self.communication.after(steps, total_steps)
        if steps == total_steps:
            self.finish_gossip()
        if round_ is None:
            return None
        if round_.kind == "merge":
            self.merge(steps, extra_matrices)
            return round_
        if self.communication.schedule.shape == "adaptive" and not self._have_drifted():
            return None
        plan = round_.topology.plan(self.communication.seed, round_.number, range(self.num_agents))
        self.finish_gossip()
        self._check_finite()
        before = [matrix.clone() for matrix in self.rows] if self.overlap else []
        if plan.is_average:
            self._average(extra_matrices, "gossip")
        else:
            for index, matrix in enumerate((*self.rows, *extra_matrices)):
                self.mix(matrix, plan, f"pair {index}")
            self._record_plan(plan, (*self.rows, *extra_matrices))
        if self.overlap and steps != total_steps:
            self._changes = [x - old for x, old in zip(self.rows, before, strict=True)]
            for matrix, old in zip(self.rows, before, strict=True):
                matrix.copy_(old)
        if self._reference is not None:
            self._reference = [matrix.clone() for matrix in self.rows]
        return round_

    def merge(self, steps: int, extra_matrices: Sequence[Tensor] = ()) -> None:
        """Replace every agent's weights by the mean of all, or by the outer optimizer's step."""
        self.finish_gossip()
        self._check_finite()
        self._average(extra_matrices, "merge")
        self.steps_at_merge = steps

    def finish_gossip(self) -> None:
        """Add the change of the last round to the weights, if that is still due."""
        changes, self._changes = self._changes, None
        for matrix, change in zip(self.rows, changes or [], strict=False):
            matrix.add_(change)

    def mix(self, matrix: Tensor, plan: MixingPlan, key: str) -> None:
        """Mix the rows of ``matrix`` ``(agents, numel)`` in place; ``key`` names its rounding."""
        if not self.wire.has_feedback:
            matrix.copy_(mixed_rows(matrix, plan, self.wire))
            return
        values = self._feedback.add_to(key, matrix)
        sent = self._as_sent(values)
        matrix.copy_(_mixed(matrix, sent, plan))
        kept = self._feedback.add_to(key, torch.zeros_like(matrix))
        self._feedback.keep(key, values, sent)
        for agent in range(self.num_agents):
            if not plan.sources(agent):  # it took no part, so its rest is still due
                self._feedback.rests[key][agent] = kept[agent]

    def _as_sent(self, matrix: Tensor) -> Tensor:
        return torch.stack([self.wire.decode(self.wire.encode(row), row) for row in matrix])

    def have_same_parameters(self) -> bool:
        """Whether all agents have the same parameters."""
        return all(bool((matrix == matrix[0]).all()) for matrix in self.rows)

    def consensus_distance(self) -> Tensor:
        """Compute ``1/n sum_i ||x_i - x̄||^2`` over the parameters."""
        wide = [matrix.double() for matrix in self.rows]
        squared = [((matrix - matrix.mean(0)) ** 2).sum() for matrix in wide]
        return torch.stack(squared).sum() / self.num_agents

    def state_dict(self) -> dict[str, Any]:
        """Return the parameters and the state of communication."""
        return {
            "rows": self.rows,
            "steps_at_merge": self.steps_at_merge,
            "outer": self._outer.state_dict() if self._outer else None,
            "reference": self._reference,
            "rests": self._feedback.rests,
            "changes": self._changes,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a :meth:`state_dict`."""
        for own, loaded in zip(self.rows, state["rows"], strict=True):
            own.copy_(loaded)
        self.steps_at_merge = state["steps_at_merge"]
        if self._outer is not None and state["outer"] is not None:
            self._outer.load_state_dict(state["outer"])
        self._feedback.rests = {
            name: rest.to(self.rows[0].device) for name, rest in state["rests"].items()
        }
        if state["changes"] is not None:
            self._changes = [change.to(self.rows[0].device) for change in state["changes"]]
        if self._reference is not None and state["reference"] is not None:
            for own, loaded in zip(self._reference, state["reference"], strict=True):
                own.copy_(loaded)

    def _average(self, extra_matrices: Sequence[Tensor], kind: str) -> None:
        matrices = [*self.rows, *extra_matrices]
        if kind == "gossip" and self.wire.rounds:
            self._average_encoded(matrices)
            return
        means = [_mean(matrix) for matrix in matrices]
        if self._outer is not None:
            self._outer.step({str(index): means[index] for index in range(len(self.rows))})
        for matrix, mean in zip(matrices, means, strict=True):
            matrix.copy_(mean)
        nbytes = sum(mean.nbytes for mean in means)
        sent = round(ring_all_reduce_bytes(nbytes, self.num_agents))
        messages = 2 * (self.num_agents - 1) * len(means)
        for agent in range(self.num_agents):
            self.ledger.record(agent, kind, sent, messages)

    def _average_encoded(self, matrices: Sequence[Tensor]) -> None:
        """Average in the wire's format, as ``Agent`` does."""
        sent_bytes = [0] * self.num_agents
        for index, matrix in enumerate(matrices):
            has_anchor = self._outer is not None and str(index) in self._outer.anchor
            has_anchor &= index < len(self.rows)
            base = self._outer.anchor[str(index)] if self._outer and has_anchor else 0
            own = matrix - base
            values = own
            if self.wire.has_feedback:
                values = self._feedback.add_to(f"average {index}", own)
            mean, sent = encoded_mean(values, self.wire, self._feedback, f"mean {index}")
            if self.wire.has_feedback:
                self._feedback.keep(f"average {index}", values, sent)
            if self._outer is None:
                for agent in range(self.num_agents):
                    matrix[agent] = mixed(own[agent], sent[agent], [mean], [1.0])
            else:
                weights = base + mean.to(matrix.dtype)
                if index < len(self.rows):
                    self._outer.step({str(index): weights})
                matrix.copy_(weights)
            parts = [self.wire.nbytes(part) for part in shares(matrix[0], self.num_agents)]
            for agent in range(self.num_agents):
                sent_bytes[agent] += sum(parts) + (self.num_agents - 2) * parts[agent]
        messages = 2 * (self.num_agents - 1) * len(matrices)
        for agent, nbytes in enumerate(sent_bytes):
            self.ledger.record(agent, "gossip", nbytes, messages)

    def _record_plan(self, plan: MixingPlan, matrices: Sequence[Tensor]) -> None:
        nbytes = sum(self.wire.nbytes(matrix[0]) for matrix in matrices)
        for agent in range(self.num_agents):
            edges = len(plan.destinations(agent))
            self.ledger.record(agent, "gossip", edges * nbytes, edges * len(matrices))

    def _check_finite(self) -> None:
        if are_finite(self.rows):
            return
        bad = [k for k in range(self.num_agents) if not are_finite([m[k] for m in self.rows])]
        raise RuntimeError(
            f"weights of agent {', '.join(map(str, bad))} are not finite; lower the learning rate "
            "or resume from the last checkpoint"
        )

    def _have_drifted(self) -> bool:
        assert self._reference is not None
        assert self.communication.schedule.threshold is not None
        moved: Any = 0.0
        norms: Any = 0.0
        for matrix, old in zip(self.rows, self._reference, strict=True):
            moved += (matrix.double() - old.double()).square().sum(1)
            norms += matrix.double().square().sum(1)
        sent = round(ring_all_reduce_bytes(8, self.num_agents))
        for agent in range(self.num_agents):
            self.ledger.record(agent, "control", sent, 2 * (self.num_agents - 1))
        return float((moved / norms).mean()) > self.communication.schedule.threshold


def mixed_rows(matrix: Tensor, plan: MixingPlan, wire: Wire | None = None) -> Tensor:
    """Return ``matrix`` ``(agents, numel)`` after a round, with the rounding of real agents."""
    if wire is None or not wire.rounds:
        return _mixed(matrix, matrix, plan)
    sent = torch.stack([wire.decode(wire.encode(row), row) for row in matrix])
    return _mixed(matrix, sent, plan)


def _mixed(matrix: Tensor, sent: Tensor, plan: MixingPlan) -> Tensor:
    rows = [
        mixed(matrix[k], sent[k], [sent[j] for j in plan.sources(k)], [*plan.sources(k).values()])
        if plan.sources(k)
        else matrix[k]
        for k in range(len(matrix))
    ]
    return torch.stack(rows)


def _mean(matrix: Tensor) -> Tensor:
    wide = torch.promote_types(matrix.dtype, torch.float32)
    return matrix.to(wide).mean(0).to(matrix.dtype)
