"""The sign-power transform as one compiled kernel."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

# log2(1 + x) = x·P(x) on [1/√2 - 1, √2 - 1], absolute error 5e-6, and 2^x = 1 + x·Q(x) on
# [-1/2, 1/2], error 2e-7: our minimax fits (least squares with Lawson's weights). Lowest first.
_LOG2 = (1.442703, -0.72122353, 0.47967112, -0.36585507, 0.31982797, -0.21153575)
_EXP2 = (0.6931472, 0.24022348, 0.05550333, 0.009666373, 0.0013400436)

_BITS_OF_SQRT_HALF = 0x3F3504F3
_MANTISSA_BITS = 23
_EXPONENT_BIAS = 127


def compiled_sign_power_(elements: Tensor, p: float, floor: float) -> None:
    """Replace a one-dimensional gradient by its sign power, in place; see ``sign_power_``."""
    wide = torch.promote_types(elements.dtype, torch.float32)
    # Between these bounds the power's exponent is one of a normal number, whatever the gradient.
    # In half precision Inductor would not vectorize the views of bits.
    fast = elements.dtype == torch.float32 and 0.02 <= p <= 1.98
    # Not dynamic=True, which turns the polynomials' coefficients into inputs, converted each call.
    torch._dynamo.maybe_mark_dynamic(elements, 0)
    added = torch.tensor(floor, dtype=wide) if floor else None
    _kernel(fast)(elements, torch.tensor(p - 1, dtype=wide), added)


@functools.cache
def _kernel(fast: bool) -> Callable[[Tensor, Tensor, Tensor | None], None]:
    """Compiled at the first call; exponent and floor are inputs, so no value recompiles it."""
    finite_power = _fast_power if fast else _clamped_power

    def kernel(elements: Tensor, power: Tensor, floor: Tensor | None) -> None:
        wide = elements.to(power.dtype)
        magnitude = wide.abs()
        if floor is not None:
            magnitude = magnitude + floor
        factor = finite_power(magnitude, power)
        powered = wide * factor if floor is None else wide.sign() * magnitude * factor
        elements.copy_(powered)

    return torch.compile(kernel, fullgraph=True)


def _fast_power(magnitude: Tensor, power: Tensor) -> Tensor:
    """``magnitude ** power`` from the bits of a float32; finite, also at zero and infinity."""
    bits = magnitude.view(torch.int32)
    exponent = (bits - _BITS_OF_SQRT_HALF) >> _MANTISSA_BITS
    mantissa = (bits - (exponent << _MANTISSA_BITS)).view(torch.float32) - 1.0
    log2 = exponent.to(torch.float32) + mantissa * _polynomial(mantissa, _LOG2)
    scaled = log2 * power
    whole = torch.floor(scaled + 0.5)
    fraction = scaled - whole
    mantissa_of_power = 1.0 + fraction * _polynomial(fraction, _EXP2)
    power_of_two = (whole.to(torch.int32) + _EXPONENT_BIAS) << _MANTISSA_BITS
    return mantissa_of_power * power_of_two.view(torch.float32)


def _clamped_power(magnitude: Tensor, power: Tensor) -> Tensor:
    """``magnitude ** power`` for every float type; not zero to a negative power."""
    limits = torch.finfo(magnitude.dtype)
    return torch.exp2(power * torch.log2(magnitude.clamp(limits.tiny, limits.max)))


def _polynomial(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    value: Tensor | float = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + coefficient
    assert isinstance(value, Tensor)
    return value
