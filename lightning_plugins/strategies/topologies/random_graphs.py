"""Random graphs: pairs, or pulls from random agents."""

import math

import numpy as np

from lightning_plugins.strategies.topologies.topology import Topology


class RandomMatching(Topology):
    """Pairs the agents at random in each round, and averages each pair.

    Each agent sends one message per round; with an odd number of agents, one does not take part.
    Every round is doubly stochastic, unlike with :class:`RandomPull`.
    """

    def received(self, num_agents: int, seed: int, round_number: int) -> list[dict[int, float]]:
        """See :meth:`Topology.received`."""
        order = np.random.default_rng([seed, round_number]).permutation(num_agents).tolist()
        rows: list[dict[int, float]] = [{} for _ in range(num_agents)]
        for one, other in zip(order[0::2], order[1::2], strict=False):
            rows[one][other] = 0.5
            rows[other][one] = 0.5
        return rows


class RandomPull(Topology):
    """Averages each agent with ``peers`` random others, with equal weights.

    ``peers=0.2`` means one other with probability 0.2. In general an agent receives from
    floor(peers) others, and from one more with the probability of the fractional part. Agents
    choose independently, so the matrix is only row-stochastic: the mean of the agents drifts
    slightly, and one agent may have to send to many. This is the random topology of the released
    code of Zhu et al., arXiv 2507.06542.

    Args:
        peers: Expected number of other agents, above 0; limited to the number of other agents.

    Raises:
        ValueError: ``peers`` is outside its range.
    """

    doubly_stochastic = False

    def __init__(self, peers: float = 1.0) -> None:
        if not (peers > 0 and math.isfinite(peers)):
            raise ValueError(f"peers={peers}: expected a finite number above 0")
        self.peers = peers

    def received(self, num_agents: int, seed: int, round_number: int) -> list[dict[int, float]]:
        """See :meth:`Topology.received`."""
        generator = np.random.default_rng([seed, round_number])
        rows = []
        for agent in range(num_agents):
            whole, fraction = divmod(self.peers, 1)
            wanted = int(whole) + int(generator.random() < fraction)
            places = generator.permutation(num_agents - 1)[:wanted].tolist()
            others = [place + (place >= agent) for place in places]
            rows.append({other: 1 / (len(others) + 1) for other in others})
        return rows
