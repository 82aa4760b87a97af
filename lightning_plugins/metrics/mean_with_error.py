"""The mean of one value per sample, with its standard error."""

import torch
from torch import Tensor
from torchmetrics import Metric


class MeanWithError(Metric):
    """Mean of values, with their :meth:`standard_error`.

    The number, sum and sum of squares of the values are accumulated in double precision.
    """

    is_differentiable = False
    full_state_update = False
    total: Tensor
    total_of_squares: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("total", "total_of_squares", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Add values ``(samples,)``."""
        values = values.double()
        self.total += values.sum()
        self.total_of_squares += values.square().sum()
        self.count += values.numel()

    def compute(self) -> Tensor:
        """Return the mean; NaN without values."""
        return (self.total / self.count).float()

    def standard_error(self) -> Tensor:
        """Return the sample standard deviation divided by ``sqrt(n)``; NaN for ``n < 2``."""
        mean = self.total / self.count
        variance = (self.total_of_squares - self.count * mean.square()) / (self.count - 1)
        error = (variance.clamp(min=0) / self.count).sqrt()
        return torch.where(self.count > 1, error, torch.nan).float()
