"""The sign-power transform sign(g)·|g|^p, elementwise and in place."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial

from lightning_plugins.optimizers.sign_power_kernel import compiled_sign_power_

# In elements: on a CPU the scratch stays in the cache, elsewhere few kernels are launched.
_CPU_CHUNK = 2**16
_DEVICE_CHUNK = 2**24

# Up to it, copying several gradients together and back costs less than calling for each.
_SMALL = 2**14

# Below it, calling the compiled kernel costs more than it saves.
_SMALLEST_COMPILED = 2**11


@torch.no_grad()
def sign_power_(
    gradients: Iterable[Tensor], p: float, floor: float = 0.0, compile: bool = False
) -> None:
    """Replace every gradient g by ``sign(g) * (|g| + floor) ** p``, in place.

    For floor = 0, every p > 0 maps 0 to 0, -0 to -0, infinities to themselves, and keeps NaN. Half
    precision is computed in single precision, with a relative error below 1e-5 for magnitudes from
    1e-30 to 1e30 and p up to 2. Beyond the gradients the memory needed is one
    chunk: 65 536 elements on a CPU, 16.8 million elsewhere.

    Source: Wang et al., "GradPower", arXiv 2505.24275, Algorithm 1; ``floor`` stands in the
    authors' code only, there with the value of Adam's epsilon.

    Args:
        gradients: floating-point tensors of any shape; a DTensor is transformed shard by shard.
        p: exponent, > 0. With p = 1 and no floor nothing is done.
        floor: added to the magnitude inside the power; zero still maps to zero.
        compile: one kernel made by ``torch.compile`` for each large tensor, faster on a CPU.
            Subnormal magnitudes, below 1.2e-38, have no relative accuracy in it.

    Raises:
        TypeError: a gradient is sparse, complex, or not floating point.
        ValueError: a DTensor's gradient is not reduced yet.
    """
    if p == 1 and floor == 0:
        return
    # In a step that is itself compiled, all this becomes kernels with the rest.
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
    """As many at a time as one chunk holds."""
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
    """The power of the magnitude; for p > 1, without a floor, the factor ``|g| ** (p - 1)``.

    The factor has a smaller relative error, but is infinite at 0 for p < 1. ``exp2(p * log2 |g|)``
    is several times as fast as ``pow`` on a CPU.
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
    """The elements as a one-dimensional view of the same memory."""
    if gradient.is_sparse or gradient.layout != torch.strided:
        raise TypeError(
            "GradPower takes no sparse gradient: build the embedding with sparse=False, or leave "
            "its parameters to another optimizer"
        )
    if not gradient.is_floating_point():
        raise TypeError(
            f"GradPower takes floating-point gradients, not {gradient.dtype}: leave this parameter "
            "to another optimizer"
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
    # A dense layout in another order, for example channels last: its elements in memory order.
    order = sorted(range(gradient.dim()), key=gradient.stride, reverse=True)
    in_memory_order = gradient.permute(order)
    if in_memory_order.is_contiguous():
        return in_memory_order.view(-1)
    raise TypeError(
        f"a gradient with strides {gradient.stride()} for shape {tuple(gradient.shape)} has gaps "
        "or overlaps: set parameter.grad = parameter.grad.contiguous() before the step"
    )
