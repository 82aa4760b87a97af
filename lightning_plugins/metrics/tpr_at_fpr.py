"""How much is found when few are wrongly accused."""

import math

import torch
from torch import Tensor
from torchmetrics import Metric


def threshold_at_fpr(negatives: Tensor, max_fpr: float) -> Tensor:
    """The lowest threshold that at most a share ``max_fpr`` of scores of negatives is above.

    A text is called positive if its score is *above* the threshold, so ties are never positive
    by halves. With fewer than ``1 / max_fpr`` negatives it is the largest of their scores.

    Args:
        negatives: scores ``(n,)``.
        max_fpr: in [0, 1).

    Returns:
        A scalar; not a number without negatives.

    Raises:
        ValueError: ``max_fpr`` outside its range.
    """
    if not 0 <= max_fpr < 1:
        raise ValueError(f"max_fpr={max_fpr}: expected a share in [0, 1)")
    if not len(negatives):
        return torch.tensor(math.nan, device=negatives.device)
    # 0.05 * 100 is a little more or less than 5 in floating point.
    allowed = math.floor(max_fpr * len(negatives) + 1e-9)
    return negatives.sort(descending=True).values[allowed]


class TPRAtFPR(Metric):
    """True positive rate at the threshold where the false positive rate is at most ``max_fpr``.

    Gives ``(rate, threshold)``; both are not numbers where one of the classes is missing. Unlike
    ``torchmetrics.classification.BinarySensitivityAtSpecificity`` it calls positive what lies above
    the threshold, so that the threshold of one set can be applied to another.

    Args:
        max_fpr: false positive rate, in [0, 1).

    Raises:
        ValueError: ``max_fpr`` outside its range.
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
        """Take scores ``(n,)``, higher for positives, and labels ``(n,)`` of 0 and 1."""
        self.scores.append(scores)
        self.labels.append(labels)

    def compute(self) -> tuple[Tensor, Tensor]:
        """The rate and the threshold."""
        scores, labels = _joined(self.scores), _joined(self.labels)
        threshold = threshold_at_fpr(scores[labels == 0], self.max_fpr)
        positives = scores[labels == 1]
        rate = (positives > threshold).float().mean()  # of nothing: not a number
        return torch.where(threshold.isnan(), threshold, rate), threshold


def _joined(state: list[Tensor] | Tensor) -> Tensor:
    # A list until processes are synchronised, one tensor after it.
    if isinstance(state, Tensor):
        return state
    return torch.cat(state) if state else torch.zeros(0)
