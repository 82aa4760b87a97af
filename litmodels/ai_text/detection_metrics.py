"""What is reported of a detector's scores."""

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, BinaryCalibrationError

from lightning_plugins.metrics.grouped_auroc import GroupedAUROC
from lightning_plugins.metrics.tpr_at_fpr import TPRAtFPR

FALSE_POSITIVE_RATES = (0.01, 0.05)


class ReportedScores(nn.Module):
    """The metrics of one stage, over all its batches and loaders, logged when it ends.

    Args:
        stage: what stands before the slash of each name.
        by_group: report AUROC by domain and by generator too, where batches tell them. The texts of
            a domain are told apart among themselves; those of a generator, from all that people
            wrote.
    """

    def __init__(self, stage: str, by_group: bool = False) -> None:
        super().__init__()
        self.stage = stage
        self.metrics = nn.ModuleDict(
            {
                "loss": MeanMetric(),
                "accuracy": BinaryAccuracy(),
                "auroc": BinaryAUROC(),
                "calibration_error": BinaryCalibrationError(n_bins=15),
            }
        )
        self.rates = nn.ModuleList(TPRAtFPR(rate) for rate in FALSE_POSITIVE_RATES)
        groups = {
            "domain": GroupedAUROC(),
            "generator": GroupedAUROC(against_all_negatives=True),
        }
        self.groups = nn.ModuleDict(groups if by_group else {})

    def update(self, scores: Tensor, batch: dict) -> None:
        """Take the scores of a batch."""
        labels = batch["label"]
        # torch's own refuses to run under autocast.
        losses = -torch.where(labels == 1, scores, 1 - scores).log().clamp(min=-100)
        metric: Any
        for name, metric in self.metrics.items():
            metric.update(*((losses,) if name == "loss" else (scores, labels)))
        for metric in self.rates:
            metric.update(scores, labels)
        for name, metric in self.groups.items():
            if name in batch:
                metric.update(scores, labels, batch[name])

    def finish(self, module: LightningModule) -> Tensor:
        """Log what was taken; the thresholds ``(2,)`` at the false positive rates."""
        for name, metric in self.metrics.items():
            module.log(f"{self.stage}/{name}", _taken(metric), prog_bar=name in ("loss", "auroc"))
        thresholds = []
        for max_fpr, metric in zip(FALSE_POSITIVE_RATES, self.rates, strict=True):
            rate, threshold = _taken(metric)
            module.log(f"{self.stage}/tpr_at_{round(100 * max_fpr)}_percent_fpr", rate)
            thresholds.append(threshold)
        for name, metric in self.groups.items():
            if not metric.update_called:
                continue
            found = _taken(metric).items()
            module.log_dict({f"{self.stage}/auroc_of_{name}/{group}": x for group, x in found})
        return torch.stack(thresholds)


def _taken(metric: Any) -> Any:
    """The value, over all processes; the metric is then as new."""
    value = metric.compute()
    metric.reset()
    return value
