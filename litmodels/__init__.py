"""LightningModules, one folder a task."""

from lightning_plugins.litmodels.image import ImageClassifier

__all__ = ["ImageClassifier"]
