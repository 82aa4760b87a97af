"""Mixtures of experts: layers, gates, back-ends, losses, and networks with constructed weights."""

from lightning_plugins.nn.moe.constructions import (
    SeparablePieces,
    construct_on_circle,
    construct_on_cube,
)
from lightning_plugins.nn.moe.dispatch import dispatch
from lightning_plugins.nn.moe.experts import Experts
from lightning_plugins.nn.moe.layer import MoELayer
from lightning_plugins.nn.moe.network import MoENetwork, RoutedStep
from lightning_plugins.nn.moe.routing import CosineGate, Routing, build_gate, limit_capacity, route
from lightning_plugins.nn.moe.routing_statistics import (
    expert_load,
    load_balancing_loss,
    load_entropy,
    num_unique_paths,
    paths_of,
    router_z_loss,
    routing_accuracy,
)
from lightning_plugins.nn.moe.targets import Bumps, SineCosine, Target, build_target

__all__ = [
    "Bumps",
    "CosineGate",
    "Experts",
    "MoELayer",
    "MoENetwork",
    "RoutedStep",
    "Routing",
    "SeparablePieces",
    "SineCosine",
    "Target",
    "build_gate",
    "build_target",
    "construct_on_circle",
    "construct_on_cube",
    "dispatch",
    "expert_load",
    "limit_capacity",
    "load_balancing_loss",
    "load_entropy",
    "num_unique_paths",
    "paths_of",
    "route",
    "router_z_loss",
    "routing_accuracy",
]
