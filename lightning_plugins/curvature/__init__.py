"""Measures of the curvature of the loss, without Lightning."""

from lightning_plugins.curvature.hessian import HessianOperator
from lightning_plugins.curvature.interpolation import (
    Interpolation,
    interpolate,
    weights_of_checkpoint,
)
from lightning_plugins.curvature.lanczos import Eigenvalues, largest_eigenvalues
from lightning_plugins.curvature.sampled_labels import sampled_cross_entropy
from lightning_plugins.curvature.sharded_sharpness import (
    ShardedHessian,
    measure_sharded_sharpness,
)
from lightning_plugins.curvature.sharpness import measure_sharpness, sam_gap
from lightning_plugins.curvature.single_precision import at_least_single_precision
from lightning_plugins.curvature.trace import Trace, hutch_plus_plus_trace, hutchinson_trace

__all__ = [
    "Eigenvalues",
    "HessianOperator",
    "Interpolation",
    "ShardedHessian",
    "Trace",
    "at_least_single_precision",
    "hutch_plus_plus_trace",
    "hutchinson_trace",
    "interpolate",
    "largest_eigenvalues",
    "measure_sharded_sharpness",
    "measure_sharpness",
    "sam_gap",
    "sampled_cross_entropy",
    "weights_of_checkpoint",
]
