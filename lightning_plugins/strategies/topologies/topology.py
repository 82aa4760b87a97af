"""Who receives whose weights in a round of gossip."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


class Topology(ABC):
    """A rule that says, round by round, whom each agent receives from and with what weight.

    A leaf gives the weights among agents 0..n-1. Where some agents are gone, the others close
    ranks: they keep their order and take the numbers 0..n-1, so that the mean is still preserved
    and nobody waits for the dead.
    """

    doubly_stochastic = True
    """Whether the columns of every mixing matrix sum to 1, so that gossip keeps the mean."""

    @abstractmethod
    def received(self, num_agents: int, seed: int, round_number: int) -> list[dict[int, float]]:
        """For each of ``num_agents`` agents, the others it receives from and their weights.

        What is left to 1 is the weight of its own. The same arguments give the same answer on
        every rank, in every process.
        """

    def check(self, num_agents: int) -> None:  # noqa: B027
        """Refuse a number of agents that this topology cannot serve.

        Raises:
            ValueError: such a number.
        """

    def plan(self, seed: int, round_number: int, alive: Collection[int]) -> "MixingPlan":
        """The round's transfers among the agents ``alive``: a pure function of its arguments."""
        agents = sorted(alive)
        rows = self.received(len(agents), seed, round_number)
        return MixingPlan(
            {
                agent: {agents[other]: weight for other, weight in row.items()}
                for agent, row in zip(agents, rows, strict=True)
            }
        )


@dataclass(frozen=True)
class MixingPlan:
    """One round: ``rows[i][j]`` is the weight with which agent i takes what j sends.

    Agent i's new weights are ``x_i + sum_j rows[i][j] * (x_j - x_i)``: written as differences, so
    that agents that agree stay as they are, bit for bit.
    """

    rows: Mapping[int, Mapping[int, float]]

    def sources(self, agent: int) -> Mapping[int, float]:
        """The agents that ``agent`` receives from, with their weights."""
        return self.rows[agent]

    def destinations(self, agent: int) -> list[int]:
        """The agents that ``agent`` sends to."""
        return [other for other, row in self.rows.items() if agent in row]

    @cached_property
    def is_average(self) -> bool:
        """Whether every agent ends with the mean of all: then an all-reduce is cheaper."""
        share = 1 / len(self.rows)
        return all(
            len(row) == len(self.rows) - 1 and all(weight == share for weight in row.values())
            for row in self.rows.values()
        )

    def matrix(self, num_agents: int) -> Tensor:
        """The mixing matrix W ``(num_agents, num_agents)``, float64; agents outside keep theirs."""
        matrix = torch.eye(num_agents, dtype=torch.float64)
        for agent, row in self.rows.items():
            for other, weight in row.items():
                matrix[agent, other] = weight
                matrix[agent, agent] -= weight
        return matrix
