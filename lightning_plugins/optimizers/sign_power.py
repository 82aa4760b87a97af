"""The sign-power transform sign(g)·|g|^p, elementwise and in place."""

import functools
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial

# In elements: on a CPU the scratch memory fits into the cache; elsewhere it limits kernel launches.
_CPU_CHUNK = 2**16
_DEVICE_CHUNK = 2**24

# Up to this size, concatenating gradients and copying them back costs less than one call for each.
_SMALL = 2**14

# Below this size, calling the compiled kernel costs more than it saves.
_SMALLEST_COMPILED = 2**11

# log2(1 + x) = x·P(x) on [1/√2 - 1, √2 - 1], absolute error 5e-6, and 2^x = 1 + x·Q(x) on
# [-1/2, 1/2], error 2e-7. Minimax fits (least squares with Lawson's weights), lowest order first.
_LOG2 = (1.442703, -0.72122353, 0.47967112, -0.36585507, 0.31982797, -0.21153575)
_EXP2 = (0.6931472, 0.24022348, 0.05550333, 0.009666373, 0.0013400436)

_BITS_OF_SQRT_HALF = 0x3F3504F3
_MANTISSA_BITS = 23
_EXPONENT_BIAS = 127


@torch.no_grad()
def sign_power_(
    gradients: Iterable[Tensor], p: float, floor: float = 0.0, compile: bool = False
) -> None:
    """Replace every gradient g by ``sign(g) * (|g| + floor) ** p``, in place.

    For floor = 0, every p > 0 maps 0 to 0, -0 to -0, infinities to themselves, and keeps NaN. Half
    precision is computed in single precision, with a relative error below 1e-5 for magnitudes from
    1e-30 to 1e30 and p up to 2. The extra memory is one chunk: 65 536 elements on a CPU, 16.8
    million elsewhere.

    Source: Wang et al., "GradPower", arXiv 2505.24275, Algorithm 1; ``floor`` is only in the
    authors' code, with the value of Adam's epsilon.

    Args:
        gradients: Floating-point tensors of any shape; a DTensor is transformed shard by shard.
        p: Exponent, > 0. With p = 1 and no floor, the gradients are unchanged.
        floor: Constant added to the magnitude inside the power; zero still maps to zero.
        compile: Transform each large tensor with one ``torch.compile`` kernel, which is faster on a
            CPU. Subnormal magnitudes, below 1.2e-38, then have no relative accuracy.

    Raises:
        TypeError: A gradient is sparse, complex, or not floating point.
        ValueError: The gradient of a DTensor is not reduced yet.
    """
    if p == 1 and floor == 0:
        return
    # Inside a compiled optimizer step, the transform is compiled with it.
    is_traced = torch.compiler.is_compiling()
    largest_small = 0 if is_traced else _SMALLEST_COMPILED - 1 if compile else _SMALL
    small: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for gradient in gradients:
        elements = _elements(gradient)
        if elements.numel() <= largest_small:
            small.setdefault((elements.dtype, elements.device), []).append(elements)
        elif compile and not is_traced:
            compiled_sign_power_(elements, p, floor)
        else:
            _in_chunks_(elements, p, floor)
    for alike in small.values():
        _together_(alike, p, floor)


def _in_chunks_(elements: Tensor, p: float, floor: float) -> None:
    size = _chunk_size(elements)
    wide = torch.promote_types(elements.dtype, torch.float32)
    scratch = torch.empty(min(size, elements.numel()), dtype=wide, device=elements.device)
    for chunk in elements.split(size):
        magnitude = scratch[: chunk.numel()]
        if chunk.dtype == wide:
            torch.abs(chunk, out=magnitude)
        else:
            magnitude.copy_(chunk).abs_()
        _apply_(_raised_(magnitude, p, floor), chunk, p, floor)


def _together_(small: list[Tensor], p: float, floor: float) -> None:
    """Transform small gradients together, one chunk at a time."""
    wide = torch.promote_types(small[0].dtype, torch.float32)
    for several in _batches(small):
        raised = _raised_(torch.cat(several).to(wide).abs_(), p, floor)
        parts = raised.split([elements.numel() for elements in several])
        for elements, part in zip(several, parts, strict=True):
            _apply_(part, elements, p, floor)


def _batches(small: list[Tensor]) -> Iterator[list[Tensor]]:
    batch: list[Tensor] = []
    count = 0
    for elements in small:
        if batch and count + elements.numel() > _chunk_size(elements):
            yield batch
            batch, count = [], 0
        batch.append(elements)
        count += elements.numel()
    yield batch


def _raised_(magnitude: Tensor, p: float, floor: float) -> Tensor:
    """Return the power of the magnitude; for p > 1 without a floor, ``|g| ** (p - 1)``.

    The factor ``|g| ** (p - 1)`` has a smaller relative error, but is infinite at 0 for p < 1.
    ``exp2(p * log2 |g|)`` is several times as fast as ``pow`` on a CPU.
    """
    if floor:
        magnitude.add_(floor)
    return magnitude.log2_().mul_(p if floor or p <= 1 else p - 1).exp2_()


def _apply_(raised: Tensor, gradient: Tensor, p: float, floor: float) -> None:
    if floor:
        torch.sign(gradient, out=gradient).mul_(raised)
    elif p > 1:
        gradient.mul_(raised)
    else:
        torch.copysign(raised, gradient, out=gradient)


def _chunk_size(elements: Tensor) -> int:
    return _CPU_CHUNK if elements.device.type == "cpu" else _DEVICE_CHUNK


def _elements(gradient: Tensor) -> Tensor:
    """Return the elements as a one-dimensional view of the same memory."""
    if gradient.is_sparse or gradient.layout != torch.strided:
        raise TypeError(
            "GradPower does not support sparse gradients: build the embedding with sparse=False, "
            "or use another optimizer for its parameters"
        )
    if not gradient.is_floating_point():
        raise TypeError(
            f"GradPower requires floating-point gradients, not {gradient.dtype}: use another "
            "optimizer for this parameter"
        )
    if isinstance(gradient, DTensor):
        if any(isinstance(placement, Partial) for placement in gradient.placements):
            raise ValueError(
                f"a gradient with placements={gradient.placements} is not reduced yet, and the "
                "power of a sum is not the sum of powers: redistribute it first"
            )
        gradient = gradient.to_local()
    if gradient.is_contiguous():
        return gradient.view(-1)
    # A dense layout in another order, for example channels last: view the elements in memory order.
    order = sorted(range(gradient.dim()), key=gradient.stride, reverse=True)
    in_memory_order = gradient.permute(order)
    if in_memory_order.is_contiguous():
        return in_memory_order.view(-1)
    raise TypeError(
        f"a gradient with strides {gradient.stride()} for shape {tuple(gradient.shape)} has gaps "
        "or overlaps: set parameter.grad = parameter.grad.contiguous() before the step"
    )


def compiled_sign_power_(elements: Tensor, p: float, floor: float) -> None:
    """Replace a one-dimensional gradient by its sign power, in place; see ``sign_power_``."""
    wide = torch.promote_types(elements.dtype, torch.float32)
    # For these p, the power of every finite gradient has the exponent of a normal number. In half
    # precision, Inductor does not vectorize the bit views.
    fast = elements.dtype == torch.float32 and 0.02 <= p <= 1.98
    # dynamic=True would turn the polynomials' coefficients into inputs and convert them every call.
    torch._dynamo.maybe_mark_dynamic(elements, 0)
    added = torch.tensor(floor, dtype=wide) if floor else None
    _kernel(fast)(elements, torch.tensor(p - 1, dtype=wide), added)


@functools.cache
def _kernel(fast: bool) -> Callable[[Tensor, Tensor, Tensor | None], None]:
    """Return the kernel; exponent and floor are inputs, so new values do not recompile it."""
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
