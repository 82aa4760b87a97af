"""Topologies of gossip: who receives whose weights, round by round."""

from lightning_plugins.strategies.topologies.complete import Complete
from lightning_plugins.strategies.topologies.explicit_matrix import ExplicitMatrix
from lightning_plugins.strategies.topologies.hierarchical import Hierarchical
from lightning_plugins.strategies.topologies.one_peer_exponential import OnePeerExponential
from lightning_plugins.strategies.topologies.random_matching import RandomMatching
from lightning_plugins.strategies.topologies.random_pull import RandomPull
from lightning_plugins.strategies.topologies.ring import Ring
from lightning_plugins.strategies.topologies.static_exponential import StaticExponential
from lightning_plugins.strategies.topologies.topology import MixingPlan, Topology

__all__ = [
    "Complete",
    "ExplicitMatrix",
    "Hierarchical",
    "MixingPlan",
    "OnePeerExponential",
    "RandomMatching",
    "RandomPull",
    "Ring",
    "StaticExponential",
    "Topology",
]
