"""Detection of AI-generated text: a robust head on any encoder, and its training losses."""

from lightning_plugins.nn.ai_text.detector_network import (
    DetectorNetwork,
    MaxPoolHead,
    ReconstructionNetwork,
)
from lightning_plugins.nn.ai_text.training_methods import (
    METHODS,
    SCRN,
    Flooding,
    Method,
    Plain,
    RanMask,
    RDrop,
)

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
