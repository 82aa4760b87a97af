"""Caption scores of the COCO evaluation, computed in Python without a download."""

from lightning_plugins.metrics.captioning.bleu import bleu
from lightning_plugins.metrics.captioning.change_captions import ChangeCaptionScores
from lightning_plugins.metrics.captioning.cider_d import cider_d
from lightning_plugins.metrics.captioning.meteor import meteor
from lightning_plugins.metrics.captioning.rouge_l import rouge_l

__all__ = ["ChangeCaptionScores", "bleu", "cider_d", "meteor", "rouge_l"]
