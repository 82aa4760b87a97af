"""A mixing matrix of your own."""

from collections.abc import Collection, Sequence

import torch

from lightning_plugins.strategies.topologies.topology import MixingPlan, Topology


class ExplicitMatrix(Topology):
    """Agent i takes ``matrix[i][j]`` of what agent j sends, in each round.

    Where agents are gone, what they would have sent is replaced by the receiver's own weights:
    the numbers of a matrix mean certain agents, so the others do not close ranks.

    Args:
        matrix: a row for each agent; no entry below 0, a diagonal above 0, rows that sum to 1.

    Raises:
        ValueError: a matrix that is not of this kind.
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
                f"matrix={rows}: expected no entry below 0 and a diagonal above 0 (each agent "
                "keeps a part of its own weights)"
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
        """Refuse another number of agents than the matrix has rows."""
        if len(self.matrix) != num_agents:
            raise ValueError(
                f"matrix has {len(self.matrix)} rows, and there are {num_agents} agents: give a "
                f"{num_agents}x{num_agents} matrix"
            )

    def received(self, num_agents: int, seed: int, round_number: int) -> list[dict[int, float]]:
        """As :meth:`Topology.received`; the same in each round."""
        self.check(num_agents)
        return [
            {other: weight for other, weight in enumerate(row) if weight and other != agent}
            for agent, row in enumerate(self.matrix)
        ]

    def plan(self, seed: int, round_number: int, alive: Collection[int]) -> MixingPlan:
        """As :meth:`Topology.plan`, but the agents keep their numbers."""
        rows = self.received(len(self.matrix), seed, round_number)
        return MixingPlan(
            {
                agent: {other: weight for other, weight in rows[agent].items() if other in alive}
                for agent in sorted(alive)
            }
        )
