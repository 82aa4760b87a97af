"""Image classification."""

from lightning_plugins.litmodels.image.classifier import ImageClassifier

__all__ = ["ImageClassifier"]
