"""The metrics of a detector's scores, and the names under which they are logged."""

import warnings
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, BinaryCalibrationError

from lightning_plugins.metrics.grouped_auroc import GroupedAUROC
from lightning_plugins.metrics.tpr_at_fpr import TPRAtFPR

FALSE_POSITIVE_RATES = (0.01, 0.05)


class DetectionMetrics(nn.Module):
    """The metrics of one stage over all its batches and DataLoaders, logged when it ends.

    Args:
        stage: Prefix of the logged names, before the slash.
        by_group: Also log the AUROC of each domain and each generator, if the batches contain
            them. A domain's AI texts are compared with the human texts of that domain; a
            generator's texts are compared with all human texts.
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
        self.window_rates = nn.ModuleList(TPRAtFPR(rate) for rate in FALSE_POSITIVE_RATES)
        self._has_warned = False

    def update(self, scores: Tensor, batch: dict) -> None:
        """Add the scores of a batch."""
        labels = batch["label"]
        # torch.nn.functional.binary_cross_entropy raises an error under autocast.
        losses = -torch.where(labels == 1, scores, 1 - scores).log().clamp(min=-100)
        metric: Any
        for name, metric in self.metrics.items():
            metric.update(*((losses,) if name == "loss" else (scores, labels)))
        for metric in self.rates:
            metric.update(scores, labels)
        for name, metric in self.groups.items():
            if name in batch:
                metric.update(scores, labels, batch[name])

    def update_windows(self, scores: Tensor, labels: Tensor) -> None:
        """Add the scores of windows, and the labels of their texts."""
        metric: Any
        for metric in self.window_rates:
            metric.update(scores, labels)

    def window_thresholds(self) -> Tensor:
        """Return the thresholds of windows ``(2,)``, one per rate, and reset them."""
        thresholds = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of the texts have the same warning
            for metric in self.window_rates:
                thresholds.append(_computed_and_reset(metric)[1])
        return torch.stack(thresholds)

    def finish(self, module: LightningModule) -> Tensor:
        """Log and reset the metrics, and return the thresholds ``(2,)``, one per rate."""
        metric: Any
        for name, metric in self.metrics.items():
            value = _computed_and_reset(metric)
            module.log(f"{self.stage}/{name}", value, prog_bar=name in ("loss", "auroc"))
        thresholds = []
        for max_fpr, metric in zip(FALSE_POSITIVE_RATES, self.rates, strict=True):
            name = f"{self.stage}/tpr_at_{round(100 * max_fpr)}_percent_fpr"
            with warnings.catch_warnings():
                # The sanity check reads few texts; later epochs would repeat the warning.
                if module.trainer.sanity_checking or self._has_warned:
                    warnings.simplefilter("ignore")
                rate, threshold = metric.compute()
            module.log(name, rate)
            if self.stage == "test":
                with metric.sync_context(dist_sync_fn=metric.dist_sync_fn):
                    low, high = metric.interval()
                module.log_dict({f"{name}_low": low, f"{name}_high": high})
            metric.reset()
            thresholds.append(threshold)
        for name, metric in self.groups.items():
            if not metric.update_called:
                continue
            found = _computed_and_reset(metric).items()
            module.log_dict({f"{self.stage}/auroc_of_{name}/{group}": x for group, x in found})
        self._has_warned = not module.trainer.sanity_checking
        return torch.stack(thresholds)


def _computed_and_reset(metric: Any) -> Any:
    """Return the value over all processes, and reset the metric."""
    value = metric.compute()
    metric.reset()
    return value
