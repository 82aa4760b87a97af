"""A ring: agents average with their two neighbours."""

from lightning_plugins.strategies.topologies.topology import Topology


class Ring(Topology):
    """Averages each agent with its two neighbours, each with weight 1/3.

    The spectral gap is ``(2/3)(1 - cos(2π/n))``, so many agents mix slowly (0.01 for 32). Two
    agents take their mean.
    """

    def received(self, num_agents: int, seed: int, round_number: int) -> list[dict[int, float]]:
        """See :meth:`Topology.received`; all rounds are the same."""
        rows = []
        for agent in range(num_agents):
            # A set: with two agents, both neighbours are the same agent.
            others = {(agent - 1) % num_agents, (agent + 1) % num_agents} - {agent}
            rows.append({other: 1 / (len(others) + 1) for other in sorted(others)})
        return rows
