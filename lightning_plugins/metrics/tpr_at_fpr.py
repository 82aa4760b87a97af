"""True positive rate at a limited false positive rate."""

import math
import warnings
from statistics import NormalDist

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

    Fewer than ``1 / max_fpr`` negatives cannot show such a rate: ``compute`` warns, and returns the
    rate above the largest negative. :meth:`interval` states how well the rate is known.

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
        negatives = scores[labels == 0]
        threshold = threshold_at_fpr(negatives, self.max_fpr)
        if 0 < len(negatives) * self.max_fpr < 1 - 1e-9:
            warnings.warn(
                f"{len(negatives)} negatives are too few for a false positive rate of "
                f"{self.max_fpr:g}, which needs at least {math.ceil(1 / self.max_fpr - 1e-9)}: the "
                "threshold is their largest score",
                stacklevel=2,
            )
        positives = scores[labels == 1]
        rate = (positives > threshold).float().mean()  # NaN without positives
        return torch.where(threshold.isnan(), threshold, rate), threshold

    def interval(self, confidence: float = 0.95) -> tuple[Tensor, Tensor]:
        """Return a confidence interval ``(low, high)`` of the rate.

        The number of negatives above the true threshold is binomial, so the threshold lies between
        two order statistics of the negatives (free of a distribution); the rate at each of them
        gets its binomial (Wilson) bound. Both errors share ``1 - confidence`` equally, so the
        interval is conservative. It contains 0 or 1 if there are too few negatives.

        Raises:
            ValueError: ``confidence`` is outside (0, 1).
        """
        if not 0 < confidence < 1:
            raise ValueError(f"confidence={confidence}: expected a share in (0, 1)")
        missing = torch.tensor(math.nan, device=self.device)
        if not len(self.scores):
            return missing, missing
        scores, labels = dim_zero_cat(self.scores), dim_zero_cat(self.labels)
        positives = scores[labels == 1]
        negatives = scores[labels == 0].sort(descending=True).values
        if not len(positives) or not len(negatives):
            return missing, missing
        tail = (1 - confidence) / 4
        fewest, most = _binomial_range(len(negatives), self.max_fpr, tail)
        bounds = []
        for above, sign in ((fewest, -1), (most, 1)):
            if sign < 0 and above == 0:
                rate = 0.0  # the true threshold may be above all negatives
            elif above >= len(negatives):
                rate = 1.0
            else:
                place = above - 1 if sign < 0 else above
                rate = float((positives > negatives[place]).float().mean())
            bounds.append(_wilson(rate, len(positives), tail, sign))
        return torch.tensor(bounds[0]), torch.tensor(bounds[1])


def _binomial_range(count: int, share: float, tail: float) -> tuple[int, int]:
    """Return the smallest and the largest count outside of which each tail has at most ``tail``."""
    mass = [
        math.exp(
            math.lgamma(count + 1)
            - math.lgamma(k + 1)
            - math.lgamma(count - k + 1)
            + (k * math.log(share) if k else 0)
            + (count - k) * math.log1p(-share)
        )
        if share > 0
        else float(k == 0)
        for k in range(count + 1)
    ]
    total, fewest = 0.0, 0
    while total + mass[fewest] <= tail:
        total += mass[fewest]
        fewest += 1
    total, most = 0.0, count
    while total + mass[most] <= tail:
        total += mass[most]
        most -= 1
    return fewest, most


def _wilson(share: float, count: int, tail: float, sign: int) -> float:
    z = NormalDist().inv_cdf(1 - tail)
    centre = share + z * z / (2 * count)
    width = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return min(max((centre + sign * width) / (1 + z * z / count), 0.0), 1.0)
