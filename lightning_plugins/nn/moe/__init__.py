"""Mixtures of experts: the layer, its gates, back-ends and losses, and constructions by formula."""

from lightning_plugins.nn.moe.dispatch import dispatch
from lightning_plugins.nn.moe.experts import Experts
from lightning_plugins.nn.moe.gates import CosineGate, build_gate
from lightning_plugins.nn.moe.layer import MoELayer
from lightning_plugins.nn.moe.losses import expert_load, load_balancing_loss, router_z_loss
from lightning_plugins.nn.moe.routing import Routing, route

__all__ = [
    "CosineGate",
    "Experts",
    "MoELayer",
    "Routing",
    "build_gate",
    "dispatch",
    "expert_load",
    "load_balancing_loss",
    "route",
    "router_z_loss",
]
