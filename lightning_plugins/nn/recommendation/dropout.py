"""Dropout that is not most of the work of a small network on a processor."""

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout


class Dropout(nn.Module):
    """Sets elements to zero with probability ``p`` in training, and scales the others to make up.

    On a processor PyTorch draws a number for each element, one after another, which is a third of a
    small SASRec's training. Here eight elements share one: each compares a byte of it, so that the
    probability is that of the nearest multiple of 1/256, and the scale goes with it.

    Args:
        p: probability, in [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, values: Tensor) -> Tensor:
        """``values`` with some elements at zero in training, and as they are in evaluation."""
        if not self.training or self.p == 0:
            return values
        if values.device.type != "cpu":
            return dropout(values, self.p)
        dropped = min(255, round(256 * self.p))
        draws = torch.empty((values.numel() + 7) // 8, dtype=torch.int64)
        draws.random_(-(2**63), None)  # all 64 bits
        is_kept = draws.view(torch.uint8)[: values.numel()].view(values.shape) >= dropped
        return values * is_kept.to(values.dtype).mul_(256 / (256 - dropped))
