"""The loss for labels that a classifier draws itself; its gradients estimate the Fisher matrix."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def sampled_cross_entropy(logits: Tensor) -> tuple[Tensor, int]:
    """Compute the mean cross-entropy for labels drawn from the predictions, and their number N.

    With g its gradient, the expectation of N g gᵀ over the labels is the Fisher matrix of the mean
    loss, which is its Gauss-Newton matrix, at any weights: gradients of different labels are
    independent with mean 0. For the labels of the data this holds only where the predictions are
    those of the data.

    Args:
        logits: Logits ``(..., classes)``; every leading index has a label of its own.

    Example:
        >>> import torch
        >>> from lightning_plugins.curvature import sampled_cross_entropy
        >>> loss, count = sampled_cross_entropy(torch.zeros(2, 3, 5))
        >>> round(float(loss), 4), count
        (1.6094, 6)
    """
    logits = logits.float().reshape(-1, logits.shape[-1])
    drawn = torch.multinomial(logits.detach().softmax(-1), 1).squeeze(1)
    return cross_entropy(logits, drawn), len(drawn)
