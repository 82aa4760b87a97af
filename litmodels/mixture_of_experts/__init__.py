"""Mixtures of experts for regression tasks of known structure."""

from lightning_plugins.litmodels.mixture_of_experts.regressor import MoERegressor

__all__ = ["MoERegressor"]
