"""LightningModules, one folder a task."""

from lightning_plugins.litmodels.image import ImageClassifier
from lightning_plugins.litmodels.language_model import CausalLM

__all__ = ["CausalLM", "ImageClassifier"]
