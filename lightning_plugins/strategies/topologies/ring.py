"""Each agent and its two neighbours on a ring."""

from lightning_plugins.strategies.topologies.topology import Topology


class Ring(Topology):
    """Every agent averages itself and its two neighbours, each with weight 1/3.

    Spectral gap ``(2/3)(1 - cos(2π/n))``: slow for many agents (0.01 for 32). Two agents average.
    """

    def received(self, num_agents: int, seed: int, round_number: int) -> list[dict[int, float]]:
        """As :meth:`Topology.received`; the same in each round."""
        rows = []
        for agent in range(num_agents):
            # A set: of two agents, left and right neighbour are one.
            others = {(agent - 1) % num_agents, (agent + 1) % num_agents} - {agent}
            rows.append({other: 1 / (len(others) + 1) for other in sorted(others)})
        return rows
