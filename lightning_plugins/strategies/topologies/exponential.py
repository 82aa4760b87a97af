"""Exponential graphs: agents receive from those 1, 2, 4, ... positions before them."""

from lightning_plugins.strategies.topologies.topology import Topology


class StaticExponential(Topology):
    """Averages each agent with the agents 1, 2, 4, 8, ... positions before it, with equal weights.

    Spectral gap ``2 / (1 + ceil(log2 n))`` for even n: Ying et al., Exponential Graph is Provably
    Efficient for Decentralized Deep Training, NeurIPS 2021 (arXiv 2110.13363), Proposition 1.
    """

    def received(self, num_agents: int, seed: int, round_number: int) -> list[dict[int, float]]:
        """See :meth:`Topology.received`; all rounds are the same."""
        hops = [2**k for k in range(num_agents.bit_length()) if 2**k < num_agents]
        share = 1 / (len(hops) + 1)
        return [{(agent - hop) % num_agents: share for hop in hops} for agent in range(num_agents)]


class OnePeerExponential(Topology):
    """Averages each agent with the one ``2^(t mod ceil(log2 n))`` positions before it in round t.

    Each agent sends one message per round. If n is a power of 2, the agents agree exactly after
    log2(n) rounds, otherwise approximately: Ying et al., NeurIPS 2021 (arXiv 2110.13363), Lemma 1.
    """

    def received(self, num_agents: int, seed: int, round_number: int) -> list[dict[int, float]]:
        """See :meth:`Topology.received`; ``seed`` is not used."""
        if num_agents == 1:
            return [{}]
        period = (num_agents - 1).bit_length()
        hop = 2 ** (round_number % period)
        return [{(agent - hop) % num_agents: 0.5} for agent in range(num_agents)]
