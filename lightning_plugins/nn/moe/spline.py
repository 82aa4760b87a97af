"""A piecewise linear function of one variable as the weights of a ReLU network."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Spline:
    """``value + sum_k kinks[k] * relu(x - knots[k])`` for x from the first knot on.

    Attributes:
        knots: float64 ``(neurons,)``.
        kinks: change of the slope at each knot, float64 ``(neurons,)``.
        value: at the first knot, float64 without dimensions.
    """

    knots: Tensor
    kinks: Tensor
    value: Tensor


def interpolating_spline(
    function: Callable[[Tensor], Tensor], low: float, high: float, neurons: int
) -> Spline:
    """The spline with ``neurons`` equal segments that agrees with ``function`` at their ends.

    It is off by at most ``(high - low)^2 / (8 * neurons^2) * sup |f''|`` (de Boor, A Practical
    Guide to Splines, chapter III).
    """
    ends = torch.linspace(low, high, neurons + 1, dtype=torch.float64)
    values = function(ends)
    slopes = values.diff() / ends.diff()
    return Spline(ends[:-1], slopes.diff(prepend=slopes.new_zeros(1)), values[0])
