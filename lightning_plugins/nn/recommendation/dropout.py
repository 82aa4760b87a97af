"""Dropout that is fast for small networks on a CPU."""

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout


class Dropout(nn.Module):
    """Sets elements to zero with probability ``p`` in training, and rescales the other elements.

    On a CPU, PyTorch draws one random number per element sequentially. This takes a third of the
    training time of a small SASRec. Here eight elements share one 64-bit number, and each element
    is compared with one byte. The effective probability is therefore the nearest multiple of 1/256;
    the scale uses the effective probability.

    Args:
        p: Dropout probability, in [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, values: Tensor) -> Tensor:
        """Return ``values`` with dropout in training, unchanged in evaluation."""
        if not self.training or self.p == 0:
            return values
        if values.device.type != "cpu":
            return dropout(values, self.p)
        dropped = min(255, round(256 * self.p))
        draws = torch.empty((values.numel() + 7) // 8, dtype=torch.int64)
        draws.random_(-(2**63), None)  # all 64 bits
        is_kept = draws.view(torch.uint8)[: values.numel()].view(values.shape) >= dropped
        return values * is_kept.to(values.dtype).mul_(256 / (256 - dropped))
