"""The set of images that an attack may use instead of a given one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Norm = Literal["linf", "l2"]


@dataclass(frozen=True)
class ThreatModel:
    """All images within ``eps`` of the original in a norm, with pixels in the valid range.

    ``eps`` and ``clamp`` are in pixel units, also for a network with normalized inputs. If its
    inputs are ``(pixels - mean) / std``, the ball is an ellipsoid in input units, with radius
    ``eps / std[c]`` in channel c. If the inputs are pixels, omit ``mean`` and ``std``.

    Inputs are floating-point tensors ``(batch, channels, ...)``. If mean and std are single numbers
    or omitted, any shape is valid whose first dimension counts samples.

    Args:
        eps: The radius, from 0 to the diameter of the range (the width of ``clamp``; in L2 times
            the square root of the number of pixel values).
        norm: ``linf``, the largest change of any pixel value, or ``l2``, the Euclidean length of
            the change of an image.
        mean: The mean that was subtracted from the pixels, one number or one per channel.
        std: The divisor of the pixels, above 0, with as many numbers as ``mean``.
        clamp: The lowest and highest valid pixel value; ``(-inf, inf)`` for unbounded inputs.

    Raises:
        ValueError: An argument is outside its range.
    """

    eps: float
    norm: Norm = "linf"
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    clamp: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        low, high = self.clamp
        if not low < high:
            raise ValueError(f"clamp={self.clamp}: expected (lowest, highest) pixel value")
        if self.norm not in ("linf", "l2"):
            raise ValueError(f"norm={self.norm!r}: expected 'linf' or 'l2'")
        if not 0 <= self.eps < math.inf:
            raise ValueError(f"eps={self.eps}: expected 0 or more, in pixel units")
        if self.norm == "linf" and self.eps > high - low:
            raise ValueError(
                f"eps={self.eps}: pixel values in clamp={self.clamp} differ by at most "
                f"{high - low}; for pixels in [0, 1] write 4/255 as 0.0157"
            )
        if (self.mean is None) != (self.std is None):
            raise ValueError(f"mean={self.mean}, std={self.std}: expected both or neither")
        if self.mean is not None and self.std is not None:
            if len(self.mean) != len(self.std) or not len(self.mean):
                raise ValueError(
                    f"mean={self.mean}, std={self.std}: expected one number of each per channel"
                )
            if not all(math.isfinite(value) for value in self.mean):
                raise ValueError(f"mean={self.mean}: expected finite numbers")
            if not all(0 < value < math.inf for value in self.std):
                raise ValueError(f"std={self.std}: expected numbers above 0")

    def check(self, inputs: Tensor, check_range: bool = True) -> None:
        """Refuse inputs that do not fit this threat model.

        Args:
            inputs: The inputs of the network.
            check_range: Whether to check the values too, which synchronizes with the device.

        Raises:
            ValueError: The inputs are not floating point, have another number of channels, or are
                outside ``clamp``; or the L2 radius exceeds the diameter of the range.
        """
        if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
            what = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
            raise ValueError(f"inputs are {what}: an attack needs a floating point tensor")
        if inputs.dim() < 2:
            raise ValueError(
                f"inputs have shape {tuple(inputs.shape)}: expected (batch, channels, ...)"
            )
        if self.std is not None and len(self.std) not in (1, inputs.shape[1]):
            raise ValueError(
                f"mean and std have {len(self.std)} channels, inputs of shape "
                f"{tuple(inputs.shape)} have {inputs.shape[1]}"
            )
        low, high = self.clamp
        diameter = (high - low) * math.sqrt(inputs[:1].numel())
        if self.norm == "l2" and len(inputs) and self.eps > diameter:
            raise ValueError(
                f"eps={self.eps}: two images of this size differ by at most {diameter:g} in L2"
            )
        if check_range:
            self._check_range(inputs)

    def ascend(self, inputs: Tensor, gradient: Tensor, step_size: float) -> Tensor:
        """Move ``inputs`` by ``step_size`` pixel units along the steepest ascent of this norm.

        The step is ``step_size * sign(g)`` in L-infinity and ``step_size * g / ||g||`` in L2, with
        g the gradient by pixel values. For a zero or undefined gradient the step is 0.
        """
        gradient = torch.nan_to_num(gradient)
        scale = self._scale(inputs)
        if self.norm == "linf":
            return inputs + step_size / scale * gradient.sign()
        by_pixel = gradient / scale
        tiny = torch.finfo(gradient.dtype).tiny
        # Divide by the largest entry first, because squares of small gradients underflow to zero.
        flat = by_pixel.flatten(1)
        largest = flat.abs().amax(dim=1, keepdim=True).clamp_min(tiny)
        flat = flat / largest
        direction = flat / flat.norm(dim=1, keepdim=True).clamp_min(tiny)
        return inputs + step_size / scale * direction.view_as(gradient)

    def project(self, perturbed: Tensor, inputs: Tensor) -> Tensor:
        """Move ``perturbed`` into the allowed set around ``inputs``.

        In L-infinity the result is the nearest allowed point. In L2 the change is shortened to
        ``eps`` and then clipped to the range, as in the references. The result is in the ball,
        because ``inputs`` are in the range.
        """
        scale = self._scale(inputs)
        low, high = self._range(inputs)
        if self.norm == "linf":
            radius = self.eps / scale
            nearest = torch.maximum(perturbed, (inputs - radius).clamp(min=low))
            return torch.minimum(nearest, (inputs + radius).clamp(max=high))
        change = perturbed - inputs
        length = (change * scale).flatten(1).norm(dim=1)
        shorter = (self.eps / length.clamp_min(torch.finfo(inputs.dtype).tiny)).clamp_max(1.0)
        shorter = shorter.view(-1, *[1] * (inputs.dim() - 1))
        return (inputs + change * shorter).clamp(low, high)

    def random_point(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw a point uniformly from the ball around ``inputs``, and project it onto the range."""
        if self.norm == "linf":
            noise = torch.empty_like(inputs).uniform_(-self.eps, self.eps, generator=generator)
        else:
            noise = torch.empty_like(inputs).normal_(generator=generator)
            flat = noise.flatten(1)
            share = inputs.new_empty(len(inputs), 1).uniform_(generator=generator)
            # The volume is proportional to this power of the radius.
            radius = self.eps * share ** (1 / flat.shape[1])
            noise = (radius * flat / flat.norm(dim=1, keepdim=True)).view_as(inputs)
        return self.project(inputs + noise / self._scale(inputs), inputs)

    def distance(self, perturbed: Tensor, inputs: Tensor) -> Tensor:
        """Return the distance of each pair of images in pixel units, ``(batch,)``."""
        change = ((perturbed - inputs) * self._scale(inputs)).flatten(1)
        return change.norm(p=math.inf if self.norm == "linf" else 2, dim=1)

    def _scale(self, inputs: Tensor) -> Any:
        """Return pixel units per input unit, broadcastable over ``inputs``."""
        return 1.0 if self.std is None else _by_channel(self.std, inputs)

    def _range(self, inputs: Tensor) -> tuple[Any, Any]:
        """Return the lowest and highest valid input value, broadcastable over ``inputs``."""
        if self.mean is None:
            return self.clamp
        mean = _by_channel(self.mean, inputs)
        low, high = ((bound - mean) / self._scale(inputs) for bound in self.clamp)
        return low, high

    def _check_range(self, inputs: Tensor) -> None:
        low, high = (torch.as_tensor(bound) for bound in self._range(inputs))
        # Normalization rounds, so a value may be slightly outside the range.
        rounding = 8 * torch.finfo(inputs.dtype).eps
        slack = rounding * torch.maximum(low.abs(), high.abs()).clamp_min(1.0)
        if not ((inputs >= low - slack) & (inputs <= high + slack)).all():
            raise ValueError(
                f"inputs from {inputs.min().item():.4g} to {inputs.max().item():.4g} are not pixel "
                f"values in clamp={self.clamp}"
                + (
                    "; if they are normalized, pass mean and std"
                    if self.mean is None
                    else f" normalized with mean={self.mean} and std={self.std}"
                )
            )


def _by_channel(values: Sequence[float], inputs: Tensor) -> Tensor:
    return inputs.new_tensor(list(values)).view(-1, *[1] * (inputs.dim() - 2))
