"""One partner a round: 1, 2, 4, ... places away in turn."""

from lightning_plugins.strategies.topologies.topology import Topology


class OnePeerExponential(Topology):
    """In round t each agent averages itself and the agent ``2^(t mod ceil(log2 n))`` before it.

    One message an agent and round. For n a power of 2 the agents agree exactly after log2(n)
    rounds; for other n they come close: Ying et al., NeurIPS 2021 (arXiv 2110.13363), Lemma 1.
    """

    def received(self, num_agents: int, seed: int, round_number: int) -> list[dict[int, float]]:
        """As :meth:`Topology.received`; ``seed`` is not read."""
        if num_agents == 1:
            return [{}]
        period = (num_agents - 1).bit_length()
        hop = 2 ** (round_number % period)
        return [{(agent - hop) % num_agents: 0.5} for agent in range(num_agents)]
