"""Topologies of gossip: which agents exchange weights in each round."""

from lightning_plugins.strategies.topologies.complete import Complete
from lightning_plugins.strategies.topologies.explicit_matrix import ExplicitMatrix
from lightning_plugins.strategies.topologies.exponential import (
    OnePeerExponential,
    StaticExponential,
)
from lightning_plugins.strategies.topologies.hierarchical import Hierarchical
from lightning_plugins.strategies.topologies.random_graphs import RandomMatching, RandomPull
from lightning_plugins.strategies.topologies.ring import Ring
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
