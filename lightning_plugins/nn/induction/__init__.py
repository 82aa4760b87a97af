"""Induction heads: their function, emergence and detection."""

from lightning_plugins.nn.induction.constructions import (
    ConstructedInductionHead,
    SeparatedSimilarity,
)
from lightning_plugins.nn.induction.mixture import MixtureDynamics, MixtureTransformer, Trajectory
from lightning_plugins.nn.induction.ngrams import bilinear, four_gram, in_context_n_gram
from lightning_plugins.nn.induction.phases import Phases, find_phases

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
