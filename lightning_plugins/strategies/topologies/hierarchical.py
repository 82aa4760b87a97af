"""Groups that average internally in most rounds and across groups in the others."""

from lightning_plugins.strategies.topologies.topology import Topology


class Hierarchical(Topology):
    """Averages within groups of consecutive agents, and across groups in every n-th round.

    Suits machines with fast internal links: set ``group_size`` to the number of agents per machine.
    In a round across groups, agents at the same position in their groups average.

    Args:
        group_size: Agents per group, at least 2; the last group may be smaller.
        between_every: One of this many rounds averages across groups, at least 2.

    Raises:
        ValueError: An argument is outside its range.
    """

    def __init__(self, group_size: int, between_every: int = 2) -> None:
        if group_size < 2:
            raise ValueError(f"group_size={group_size}: expected at least 2 agents")
        if between_every < 2:
            raise ValueError(
                f"between_every={between_every}: expected at least 2, because with 1 the groups "
                "would never average internally"
            )
        self.group_size = group_size
        self.between_every = between_every

    def check(self, num_agents: int) -> None:
        """Check that a group is not larger than the number of agents."""
        if self.group_size > num_agents:
            raise ValueError(
                f"group_size={self.group_size}: there are {num_agents} agents; choose a smaller "
                "group or the topology Complete"
            )

    def received(self, num_agents: int, seed: int, round_number: int) -> list[dict[int, float]]:
        """See :meth:`Topology.received`; ``seed`` is not used."""
        is_between = round_number % self.between_every == self.between_every - 1
        group_of = [
            agent % self.group_size if is_between else agent // self.group_size
            for agent in range(num_agents)
        ]
        rows = []
        for agent in range(num_agents):
            others = [
                other
                for other in range(num_agents)
                if other != agent and group_of[other] == group_of[agent]
            ]
            rows.append({other: 1 / (len(others) + 1) for other in others})
        return rows
