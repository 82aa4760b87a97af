"""LightningModules, one folder a task."""

from lightning_plugins.litmodels.image import ImageClassifier
from lightning_plugins.litmodels.induction import InductionMixture
from lightning_plugins.litmodels.language_model import CausalLM
from lightning_plugins.litmodels.mixture_of_experts import MoERegressor

__all__ = ["CausalLM", "ImageClassifier", "InductionMixture", "MoERegressor"]
