"""Induction heads: what they compute, how they emerge, and how they are recognized."""

from lightning_plugins.nn.induction.constructions import (
    ConstructedInductionHead,
    SeparatedSimilarity,
)
from lightning_plugins.nn.induction.dynamics import MixtureDynamics, Trajectory
from lightning_plugins.nn.induction.mixture import MixtureTransformer
from lightning_plugins.nn.induction.phases import Phases, find_phases
from lightning_plugins.nn.induction.targets import bilinear, four_gram, in_context_n_gram

__all__ = [
    "ConstructedInductionHead",
    "MixtureDynamics",
    "MixtureTransformer",
    "Phases",
    "SeparatedSimilarity",
    "Trajectory",
    "bilinear",
    "find_phases",
    "four_gram",
    "in_context_n_gram",
]
