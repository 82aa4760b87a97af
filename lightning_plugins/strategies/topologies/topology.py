"""Base class of topologies: which agents exchange weights in a round of gossip."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


class Topology(ABC):
    """Defines for each round which agents an agent receives from, and the mixing weights.

    Subclasses define the weights among agents 0..n-1. If some agents have failed, the remaining
    agents are renumbered 0..n-1 in order, so the mean is still preserved and no agent waits for a
    failed one.
    """

    doubly_stochastic = True
    """Whether the columns of every mixing matrix sum to 1, so that gossip preserves the mean."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # Callbacks with a topology occur in the hyperparameters of checkpoints.
        if cls.__module__.startswith("lightning_plugins."):
            torch.serialization.add_safe_globals([cls])

    @abstractmethod
    def received(self, num_agents: int, seed: int, round_number: int) -> list[dict[int, float]]:
        """Return, for each agent, the other agents it receives from and their weights.

        The agent's own weight is 1 minus their sum. The result must depend only on the arguments,
        so that it is the same in every process.

        Args:
            num_agents: Number of agents.
            seed: Seed of random topologies.
            round_number: Index of the round.
        """

    def check(self, num_agents: int) -> None:  # noqa: B027
        """Check that this topology supports ``num_agents`` agents.

        Raises:
            ValueError: It does not support this number.
        """

    def plan(self, seed: int, round_number: int, agents: Collection[int]) -> "MixingPlan":
        """Return the round's transfers among ``agents``; a pure function of the arguments."""
        ordered = sorted(agents)
        rows = self.received(len(ordered), seed, round_number)
        return MixingPlan(
            {
                agent: {ordered[other]: weight for other, weight in row.items()}
                for agent, row in zip(ordered, rows, strict=True)
            }
        )


@dataclass(frozen=True)
class MixingPlan:
    """The transfers of one round; ``rows[i][j]`` is the mixing weight of j's tensors at agent i.

    Agent i's new weights are ``x_i + sum_j rows[i][j] * (x_j - x_i)``. With differences, agents
    that agree remain bit-identical.
    """

    rows: Mapping[int, Mapping[int, float]]

    def sources(self, agent: int) -> Mapping[int, float]:
        """Return the agents that ``agent`` receives from, with their weights."""
        return self.rows[agent]

    def destinations(self, agent: int) -> list[int]:
        """Return the agents that ``agent`` sends to."""
        return [other for other, row in self.rows.items() if agent in row]

    @cached_property
    def is_average(self) -> bool:
        """Whether the round averages all agents, so that an all-reduce is cheaper."""
        share = 1 / len(self.rows)
        return all(
            len(row) == len(self.rows) - 1 and all(weight == share for weight in row.values())
            for row in self.rows.values()
        )

    def matrix(self, num_agents: int) -> Tensor:
        """Return the mixing matrix ``(num_agents, num_agents)``, float64.

        Agents that are not in the plan keep their weights.
        """
        matrix = torch.eye(num_agents, dtype=torch.float64)
        for agent, row in self.rows.items():
            for other, weight in row.items():
                matrix[agent, other] = weight
                matrix[agent, agent] -= weight
        return matrix
