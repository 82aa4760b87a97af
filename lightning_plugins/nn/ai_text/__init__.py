"""Detection of AI-generated text: a robust head over any encoder, and the losses it learns by."""

from lightning_plugins.nn.ai_text.methods import (
    METHODS,
    SCRN,
    Flooding,
    Method,
    Plain,
    RanMask,
    RDrop,
)
from lightning_plugins.nn.ai_text.network import DetectorNetwork, MaxPoolHead
from lightning_plugins.nn.ai_text.reconstruction import ReconstructionNetwork

__all__ = [
    "METHODS",
    "SCRN",
    "DetectorNetwork",
    "Flooding",
    "MaxPoolHead",
    "Method",
    "Plain",
    "RDrop",
    "RanMask",
    "ReconstructionNetwork",
]
