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


class StackedAgents:
    """Gossips and merges the rows of matrices in place.

    The ledger records the bytes that real agents would send.

    Args:
        rows: Matrices ``(agents, numel)`` of parameters, one per dtype.
        communication: The topology and the schedule.
        ledger: The ledger that records the traffic.
        wire_dtype: Dtype of the tensors that pairs exchange; None uses that of the weights.
    """

    def __init__(
        self,
        rows: Sequence[Tensor],
        communication: Communication,
        ledger: CommLedger,
        wire_dtype: torch.dtype | None = None,
    ) -> None:
        self.rows = list(rows)
        self.communication = communication
        self.ledger = ledger
        self.wire_dtype = wire_dtype
        self.steps_at_merge: int | None = None
        self.num_agents = len(self.rows[0])
        initial = [matrix[0] for matrix in self.rows]
        self._outer = (
            OuterState(communication.outer, initial, [len(flat) for flat in initial])
            if communication.outer
            else None
        )
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
        if round_ is None:
            return None
        if round_.kind == "merge":
            self.merge(steps, extra_matrices)
            return round_
        if self.communication.schedule.shape == "adaptive" and not self._have_drifted():
            return None
        plan = round_.topology.plan(self.communication.seed, round_.number, range(self.num_agents))
        self._check_finite()
        if plan.is_average:
            self._average(extra_matrices, "gossip")
        else:
            for matrix in (*self.rows, *extra_matrices):
                matrix.copy_(mixed_rows(matrix, plan, self.wire_dtype))
            self._record_plan(plan, (*self.rows, *extra_matrices))
        if self._reference is not None:
            self._reference = [matrix.clone() for matrix in self.rows]
        return round_

    def merge(self, steps: int, extra_matrices: Sequence[Tensor] = ()) -> None:
        """Replace every agent's weights by the mean of all, or by the outer optimizer's step."""
        self._check_finite()
        self._average(extra_matrices, "merge")
        self.steps_at_merge = steps

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
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a :meth:`state_dict`."""
        for own, loaded in zip(self.rows, state["rows"], strict=True):
            own.copy_(loaded)
        self.steps_at_merge = state["steps_at_merge"]
        if self._outer is not None and state["outer"] is not None:
            self._outer.load_state_dict(state["outer"])
        if self._reference is not None and state["reference"] is not None:
            for own, loaded in zip(self._reference, state["reference"], strict=True):
                own.copy_(loaded)

    def _average(self, extra_matrices: Sequence[Tensor], kind: str) -> None:
        means = [_mean(matrix) for matrix in self.rows]
        if self._outer is not None:
            means = self._outer.step(means)
        means += [_mean(matrix) for matrix in extra_matrices]
        matrices = [*self.rows, *extra_matrices]
        for matrix, mean in zip(matrices, means, strict=True):
            matrix.copy_(mean)
        nbytes = sum(mean.nbytes for mean in means)
        sent = round(ring_all_reduce_bytes(nbytes, self.num_agents))
        messages = 2 * (self.num_agents - 1) * len(means)
        for agent in range(self.num_agents):
            self.ledger.record(agent, kind, sent, messages)

    def _record_plan(self, plan: MixingPlan, matrices: Sequence[Tensor]) -> None:
        nbytes = sum(
            matrix[0].numel() * (self.wire_dtype or matrix.dtype).itemsize for matrix in matrices
        )
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


def mixed_rows(matrix: Tensor, plan: MixingPlan, wire_dtype: torch.dtype | None = None) -> Tensor:
    """Return ``matrix`` ``(agents, numel)`` after a round, with the rounding of real agents."""
    sent = matrix.to(wire_dtype or matrix.dtype)
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
