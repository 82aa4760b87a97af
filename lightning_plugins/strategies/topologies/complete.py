"""The complete graph: all agents average."""

from lightning_plugins.strategies.topologies.topology import Topology


class Complete(Topology):
    """Averages all agents with one all-reduce.

    Gossip every k steps is then local SGD; with an outer optimizer it is DiLoCo.
    """

    def received(self, num_agents: int, seed: int, round_number: int) -> list[dict[int, float]]:
        """See :meth:`Topology.received`; all rounds are the same."""
        share = 1 / num_agents
        return [
            {other: share for other in range(num_agents) if other != agent}
            for agent in range(num_agents)
        ]
