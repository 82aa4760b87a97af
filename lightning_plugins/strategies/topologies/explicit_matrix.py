"""A user-defined mixing matrix."""

from collections.abc import Collection, Sequence

import torch

from lightning_plugins.strategies.topologies.topology import MixingPlan, Topology


class ExplicitMatrix(Topology):
    """Mixes with weight ``matrix[i][j]`` of agent j at agent i, in each round.

    If agents fail, the remaining ones are not renumbered, because a row belongs to a certain agent.
    The weight of a failed agent is added to the receiver's own.

    Args:
        matrix: One row per agent; entries of at least 0, a diagonal above 0, row sums of 1.

    Raises:
        ValueError: The matrix does not meet these conditions.
    """

    def __init__(self, matrix: Sequence[Sequence[float]]) -> None:
        rows = [list(row) for row in matrix]
        if not rows or any(len(row) != len(rows) for row in rows):
            raise ValueError(
                f"matrix with rows of {[len(row) for row in rows]} entries: expected as many "
                "entries in each row as there are rows"
            )
        weights = torch.tensor(rows, dtype=torch.float64)
        if not bool((weights >= 0).all()) or not bool((weights.diagonal() > 0).all()):
            raise ValueError(
                f"matrix={rows}: expected no entry below 0 and a diagonal above 0, because every "
                "agent keeps a part of its own weights"
            )
        sums = weights.sum(dim=1)
        if not torch.allclose(sums, torch.ones_like(sums), rtol=0, atol=1e-9):
            raise ValueError(f"matrix has rows that sum to {sums.tolist()}: expected 1 in each")
        self.matrix = rows
        columns = weights.sum(dim=0)
        self.doubly_stochastic = torch.allclose(
            columns, torch.ones_like(columns), rtol=0, atol=1e-9
        )

    def check(self, num_agents: int) -> None:
        """Check that the matrix has one row per agent."""
        if len(self.matrix) != num_agents:
            raise ValueError(
                f"matrix has {len(self.matrix)} rows, but there are {num_agents} agents: pass a "
                f"{num_agents}x{num_agents} matrix"
            )

    def received(self, num_agents: int, seed: int, round_number: int) -> list[dict[int, float]]:
        """See :meth:`Topology.received`; all rounds are the same."""
        self.check(num_agents)
        return [
            {other: weight for other, weight in enumerate(row) if weight and other != agent}
            for agent, row in enumerate(self.matrix)
        ]

    def plan(self, seed: int, round_number: int, agents: Collection[int]) -> MixingPlan:
        """See :meth:`Topology.plan`; agents are not renumbered."""
        rows = self.received(len(self.matrix), seed, round_number)
        return MixingPlan(
            {
                agent: {other: weight for other, weight in rows[agent].items() if other in agents}
                for agent in sorted(agents)
            }
        )
