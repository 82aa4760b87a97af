"""Scores as torchmetrics metrics."""

from lightning_plugins.metrics.attack_scores import AttackScores
from lightning_plugins.metrics.captioning import ChangeCaptionScores
from lightning_plugins.metrics.grouped_auroc import GroupedAUROC
from lightning_plugins.metrics.tpr_at_fpr import TPRAtFPR, threshold_at_fpr

__all__ = ["AttackScores", "ChangeCaptionScores", "GroupedAUROC", "TPRAtFPR", "threshold_at_fpr"]
