"""Groups that average among themselves, and now and then with each other."""

from lightning_plugins.strategies.topologies.topology import Topology


class Hierarchical(Topology):
    """Groups of neighbouring agents average each round; every few rounds, groups exchange.

    For machines whose inner links are fast: let ``group_size`` be the agents of one machine. In a
    round between groups, the agents at the same place of each group average.

    Args:
        group_size: agents of a group, at least 2; the last group may be smaller.
        between_every: every how many rounds a round is one between groups, at least 2.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(self, group_size: int, between_every: int = 2) -> None:
        if group_size < 2:
            raise ValueError(f"group_size={group_size}: expected at least 2 agents")
        if between_every < 2:
            raise ValueError(
                f"between_every={between_every}: expected at least 2, or no round is left in which "
                "the groups average among themselves"
            )
        self.group_size = group_size
        self.between_every = between_every

    def check(self, num_agents: int) -> None:
        """Refuse groups larger than the whole."""
        if self.group_size > num_agents:
            raise ValueError(
                f"group_size={self.group_size}: there are {num_agents} agents; choose a smaller "
                "group or the topology Complete"
            )

    def received(self, num_agents: int, seed: int, round_number: int) -> list[dict[int, float]]:
        """As :meth:`Topology.received`; ``seed`` is not read."""
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
