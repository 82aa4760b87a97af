"""True positive rate at a limited false positive rate."""

import math

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


def threshold_at_fpr(negatives: Tensor, max_fpr: float) -> Tensor:
    """Return the lowest threshold with a false positive rate of at most ``max_fpr``.

    A sample is positive if its score is *above* the threshold, so equal scores always have the
    same label. With fewer than ``1 / max_fpr`` negatives the threshold is their largest score.

    Args:
        negatives: Scores of the negatives ``(n,)``.
        max_fpr: Maximum false positive rate, in [0, 1).

    Returns:
        A scalar; NaN without negatives.

    Raises:
        ValueError: ``max_fpr`` is outside its range.
    """
    if not 0 <= max_fpr < 1:
        raise ValueError(f"max_fpr={max_fpr}: expected a share in [0, 1)")
    if not len(negatives):
        return torch.tensor(math.nan, device=negatives.device)
    # The product is not exact in floating point: 0.29 * 100 is below 29.
    allowed = math.floor(max_fpr * len(negatives) + 1e-9)
    return negatives.sort(descending=True).values[allowed]


class TPRAtFPR(Metric):
    """True positive rate at the lowest threshold with a false positive rate of at most ``max_fpr``.

    ``compute`` returns ``(rate, threshold)``. Without negatives both are NaN; without positives the
    rate is NaN. Unlike ``torchmetrics.classification.BinarySensitivityAtSpecificity``, only scores
    above the threshold are positive, so a threshold can be applied to another set of samples.

    Args:
        max_fpr: Maximum false positive rate, in [0, 1).

    Raises:
        ValueError: ``max_fpr`` is outside its range.
    """

    full_state_update = False
    higher_is_better = True
    scores: list[Tensor]
    labels: list[Tensor]

    def __init__(self, max_fpr: float = 0.05) -> None:
        super().__init__()
        if not 0 <= max_fpr < 1:
            raise ValueError(f"max_fpr={max_fpr}: expected a share in [0, 1)")
        self.max_fpr = max_fpr
        self.add_state("scores", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, scores: Tensor, labels: Tensor) -> None:
        """Add scores ``(n,)``, higher for positives, and labels ``(n,)`` of 0 and 1."""
        self.scores.append(scores)
        self.labels.append(labels)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return the rate and the threshold."""
        if not len(self.scores):
            missing = torch.tensor(math.nan, device=self.device)
            return missing, missing
        scores, labels = dim_zero_cat(self.scores), dim_zero_cat(self.labels)
        threshold = threshold_at_fpr(scores[labels == 0], self.max_fpr)
        positives = scores[labels == 1]
        rate = (positives > threshold).float().mean()  # NaN without positives
        return torch.where(threshold.isnan(), threshold, rate), threshold
