"""What agents do after each optimizer step: nothing, gossip, or merge."""

import math
from dataclasses import dataclass, field
from typing import Literal

from lightning_plugins.strategies.outer_optimizer import OuterNesterov
from lightning_plugins.strategies.schedule import Schedule
from lightning_plugins.strategies.topologies import Complete, Topology


@dataclass(frozen=True)
class Round:
    """One meeting of the agents; ``number`` counts the schedule's rounds."""

    kind: Literal["gossip", "merge"]
    number: int
    topology: Topology


@dataclass(frozen=True)
class Communication:
    """Who meets when: the same for processes and for simulated agents.

    Args:
        topology: of gossip.
        schedule: of gossip.
        window_topology: in the window of a schedule that has one; None is ``topology``.
        final_merge: all agents average after the last step.
        outer: applied to the mean where a round averages all agents; None takes the mean.
        seed: of random topologies.

    Raises:
        ValueError: no topology where one is expected, or an outer optimizer for one that does not
            average all agents.
    """

    topology: Topology
    schedule: Schedule = field(default_factory=Schedule)
    window_topology: Topology | None = None
    final_merge: bool = True
    outer: OuterNesterov | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.topology, Topology):
            raise ValueError(
                f"topology={self.topology!r}: expected one of "
                "lightning_plugins.strategies.topologies, for example Ring()"
            )
        if self.outer is not None and not isinstance(self.topology, Complete):
            raise ValueError(
                f"outer_lr={self.outer.lr} with {type(self.topology).__name__}: the outer "
                "optimizer acts on the mean of all agents; use the topology Complete"
            )
        if self.window_topology is not None and self.schedule.shape != "window":
            raise ValueError(
                f"window_topology={type(self.window_topology).__name__} with "
                f"shape={self.schedule.shape!r}: only shape='window' has a window"
            )

    def check(self, num_agents: int, total_steps: float) -> None:
        """Refuse a run in which it cannot be kept.

        Raises:
            ValueError: a number of agents or a length of the run that does not fit.
        """
        for topology in (self.topology, self.window_topology):
            if topology is not None:
                topology.check(num_agents)
        self.schedule.check(total_steps)

    def after(self, steps: int, total_steps: float) -> Round | None:
        """What follows ``steps`` optimizer steps of ``total_steps`` (infinity: no known end)."""
        number = self.schedule.round_after(steps)
        if self.final_merge and steps == total_steps:
            return Round("merge", steps // self.schedule.every_n_steps, Complete())
        if number is None or not self.schedule.gossips(number, total_steps):
            return None
        topology = self.topology
        in_window = not math.isinf(total_steps) and self.schedule.in_window(number, total_steps)
        if self.window_topology is not None and in_window:
            topology = self.window_topology
        return Round("gossip", number, topology)
