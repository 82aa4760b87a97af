"""Curvature of the loss, without Lightning."""

from lightning_plugins.curvature.hessian import HessianOperator
from lightning_plugins.curvature.lanczos import Eigenvalues, largest_eigenvalues

__all__ = ["Eigenvalues", "HessianOperator", "largest_eigenvalues"]
