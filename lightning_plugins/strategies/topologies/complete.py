"""All agents average."""

from lightning_plugins.strategies.topologies.topology import Topology


class Complete(Topology):
    """Every agent ends with the mean of all, by one all-reduce.

    With it, gossip every k steps is local SGD, and with an outer optimizer it is DiLoCo.
    """

    def received(self, num_agents: int, seed: int, round_number: int) -> list[dict[int, float]]:
        """As :meth:`Topology.received`; the same in each round."""
        share = 1 / num_agents
        return [
            {other: share for other in range(num_agents) if other != agent}
            for agent in range(num_agents)
        ]
