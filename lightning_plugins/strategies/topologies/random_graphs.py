"""Random pairs."""

import math

import numpy as np

from lightning_plugins.strategies.topologies.topology import Topology


class RandomMatching(Topology):
    """In each round the agents are paired at random, and each pair averages.

    One message each way; with an odd number one agent rests. Doubly stochastic in each round,
    unlike :class:`RandomPull`.
    """

    def received(self, num_agents: int, seed: int, round_number: int) -> list[dict[int, float]]:
        """As :meth:`Topology.received`."""
        order = np.random.default_rng([seed, round_number]).permutation(num_agents).tolist()
        rows: list[dict[int, float]] = [{} for _ in range(num_agents)]
        for one, other in zip(order[0::2], order[1::2], strict=False):
            rows[one][other] = 0.5
            rows[other][one] = 0.5
        return rows


class RandomPull(Topology):
    """Each agent receives from ``peers`` random others and averages itself and them equally.

    ``peers=0.2`` means one other with probability 0.2; in general floor(peers), and one more with
    the probability of the fraction. Agents choose without each other, so that the matrix is
    row-stochastic only: the mean of the agents drifts a little, and one agent may have to send to
    many. This is the random topology of the released code of Zhu et al., arXiv 2507.06542.

    Args:
        peers: expected number of others, above 0; at most all others are taken.

    Raises:
        ValueError: ``peers`` outside its range.
    """

    doubly_stochastic = False

    def __init__(self, peers: float = 1.0) -> None:
        if not (peers > 0 and math.isfinite(peers)):
            raise ValueError(f"peers={peers}: expected a finite number above 0")
        self.peers = peers

    def received(self, num_agents: int, seed: int, round_number: int) -> list[dict[int, float]]:
        """As :meth:`Topology.received`."""
        generator = np.random.default_rng([seed, round_number])
        rows = []
        for agent in range(num_agents):
            whole, fraction = divmod(self.peers, 1)
            wanted = int(whole) + int(generator.random() < fraction)
            places = generator.permutation(num_agents - 1)[:wanted].tolist()
            others = [place + (place >= agent) for place in places]
            rows.append({other: 1 / (len(others) + 1) for other in others})
        return rows
