"""Each agent and those 1, 2, 4, ... places before it."""

from lightning_plugins.strategies.topologies.topology import Topology


class StaticExponential(Topology):
    """Every agent averages itself and the agents 1, 2, 4, 8, ... places before it, all equally.

    Spectral gap ``2 / (1 + ceil(log2 n))`` for even n: Ying et al., Exponential Graph is Provably
    Efficient for Decentralized Deep Training, NeurIPS 2021 (arXiv 2110.13363), Proposition 1.
    """

    def received(self, num_agents: int, seed: int, round_number: int) -> list[dict[int, float]]:
        """As :meth:`Topology.received`; the same in each round."""
        hops = [2**k for k in range(num_agents.bit_length()) if 2**k < num_agents]
        share = 1 / (len(hops) + 1)
        return [{(agent - hop) % num_agents: share for hop in hops} for agent in range(num_agents)]


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
