"""Random pairs."""

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
