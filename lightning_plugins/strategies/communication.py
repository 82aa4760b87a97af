"""What agents do after an optimizer step: nothing, gossip, or merge."""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from lightning_plugins.strategies.outer_optimizer import OuterNesterov
from lightning_plugins.strategies.schedule import Schedule
from lightning_plugins.strategies.topologies import Complete, Topology


@dataclass(frozen=True)
class Round:
    """One communication round; ``number`` is its index in the schedule."""

    kind: Literal["gossip", "merge"]
    number: int
    topology: Topology


@dataclass(frozen=True)
class Communication:
    """Describes which agents communicate after which steps, for real and simulated agents.

    Args:
        topology: The topology of gossip.
        schedule: The schedule of gossip.
        window_topology: The topology within the window of a ``window`` schedule; None uses
            ``topology``.
        final_merge: Average all agents after the last step.
        outer: Outer optimizer, applied to the mean of all agents; None uses the mean itself.
        seed: Seed of random topologies.
        rounds: Number of rounds in a run with a known end, which then replaces the schedule's
            ``every_n_steps``.

    Raises:
        ValueError: ``topology`` is not a topology, ``outer`` is used with a topology other than
            ``Complete``, or ``window_topology`` with a schedule without a window.
    """

    topology: Topology
    schedule: Schedule = field(default_factory=Schedule)
    window_topology: Topology | None = None
    final_merge: bool = True
    outer: OuterNesterov | None = None
    seed: int = 0
    rounds: int | None = None

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
        """Check that the topologies and the schedule fit the run.

        Args:
            num_agents: Number of agents.
            total_steps: Optimizer steps of the run; infinity if it has no known end.

        Raises:
            ValueError: The number of agents or the length of the run does not fit.
        """
        for topology in (self.topology, self.window_topology):
            if topology is not None:
                topology.check(num_agents)
        self.schedule_of(total_steps).check(total_steps)

    def schedule_of(self, total_steps: float) -> Schedule:
        """Return the schedule of a run of ``total_steps`` optimizer steps."""
        if self.rounds is None or math.isinf(total_steps):
            return self.schedule
        every_n_steps = max(1, round(total_steps / self.rounds))
        return replace(self.schedule, every_n_steps=every_n_steps)

    def after(self, steps: int, total_steps: float) -> Round | None:
        """Return the round after ``steps`` of ``total_steps`` optimizer steps, or None.

        ``total_steps`` is infinity if the run has no known end.
        """
        schedule = self.schedule_of(total_steps)
        number = schedule.round_after(steps)
        if self.final_merge and steps == total_steps:
            return Round("merge", steps // schedule.every_n_steps, Complete())
        if number is None or not schedule.gossips(number, total_steps):
            return None
        topology = self.topology
        in_window = not math.isinf(total_steps) and schedule.in_window(number, total_steps)
        if self.window_topology is not None and in_window:
            topology = self.window_topology
        return Round("gossip", number, topology)


def sparse(topology: Topology, seed: int) -> Communication:
    """Describe the communication of a strategy without ``CommunicationSchedule``.

    300 rounds in the run, gossip in every fifth, and the final merge. The released code of arXiv
    2507.06542 has 300 rounds of 100 steps, in which an agent receives from another one with
    probability 0.2. A run without a known end has rounds of 100 steps.
    """
    return Communication(topology, Schedule(every_n_steps=100, rate=0.2), seed=seed, rounds=300)
