"""Scores as torchmetrics metrics."""

from lightning_plugins.metrics.captioning import ChangeCaptionScores

__all__ = ["ChangeCaptionScores"]
