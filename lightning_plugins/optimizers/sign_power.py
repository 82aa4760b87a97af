"""The sign-power transform sign(g)·|g|^p, elementwise and in place."""

import functools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial

from lightning_plugins.optimizers.power_kernels import LARGEST_P, SMALLEST_P, power_kernels

# In elements: on a CPU the scratch memory of a thread fits into its cache; elsewhere it limits the
# number of kernel launches.
_CPU_CHUNK = 2**17
_DEVICE_CHUNK = 2**24

# Up to this size, concatenating gradients and copying them back costs less than one call for each.
_SMALL = 2**14


@torch.no_grad()
def sign_power_(
    gradients: Iterable[Tensor], p: float | Tensor, floor: float = 0.0, compile: bool = False
) -> None:
    """Replace every gradient g by ``sign(g) * (|g| + floor) ** p``, in place.

    For floor = 0, every p > 0 maps 0 to 0, -0 to -0, infinities to themselves, and keeps NaN. Half
    precision is computed in single precision, with a relative error below 1e-5 for magnitudes from
    1e-30 to 1e30 and p up to 2. The extra memory is one chunk: 131 072 elements per thread on
    a CPU, 16.8 million elsewhere.

    Source: Jinbo Wang et al., "GradPower", arXiv 2505.24275, abstract; ``floor`` is only in the
    authors' training script, with the value of Adam's epsilon.

    Args:
        gradients: Floating-point tensors of any shape; a DTensor is transformed shard by shard.
        p: Exponent, > 0, a number or a tensor of one element. With the number 1 and no floor, the
            gradients are unchanged.
        floor: Constant added to the magnitude inside the power; zero still maps to zero.
        compile: Use compiled kernels. On a CPU, a C++ kernel transforms all float32 and bfloat16
            gradients for p from 0.2 to 1.98, without extra memory and with a relative error below
            1e-6, also of subnormal magnitudes; elsewhere, one ``torch.compile`` kernel transforms
            each large tensor.

    Raises:
        TypeError: A gradient is sparse, complex, or not floating point.
        ValueError: The gradient of a DTensor is not reduced yet.
    """
    # Inside a compiled optimizer step, the transform is compiled with it.
    is_traced = torch.compiler.is_compiling()
    if isinstance(p, Tensor) and p.device.type == "cpu" and not is_traced:
        p = p.item()
    if not isinstance(p, Tensor) and p == 1 and floor == 0:
        return
    largest_small = 0 if is_traced else _SMALL
    alike: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for gradient in gradients:
        elements = _elements(gradient)
        alike.setdefault((elements.dtype, elements.device), []).append(elements)
    for (_, device), several in alike.items():
        if compile and device.type == "cpu" and not is_traced and _with_kernel_(several, p, floor):
            continue
        small = [elements for elements in several if elements.numel() <= largest_small]
        large = [elements for elements in several if elements.numel() > largest_small]
        if compile and device.type != "cpu" and not is_traced:
            for elements in large:
                compiled_sign_power_(elements, p, floor)
        elif large:
            _in_chunks_(large, p, floor)
        if small:
            _together_(small, p, floor)


def _with_kernel_(several: list[Tensor], p: float | Tensor, floor: float) -> bool:
    """Transform gradients on the CPU with the C++ kernel, or return False and change nothing."""
    if isinstance(p, Tensor) or not SMALLEST_P <= p <= LARGEST_P:
        return False
    kernels = power_kernels()
    return kernels is not None and bool(kernels.sign_power_(several, p, floor))


def _in_chunks_(large: list[Tensor], p: float | Tensor, floor: float) -> None:
    """Transform gradients of one type one chunk at a time, all in the same scratch memory."""
    size = min(_chunk_size(large[0]), max(elements.numel() for elements in large))
    wide = torch.promote_types(large[0].dtype, torch.float32)
    scratch = torch.empty(size, dtype=wide, device=large[0].device)
    for elements in large:
        for chunk in elements.split(size):
            magnitude = scratch[: chunk.numel()]
            if chunk.dtype == wide:
                torch.abs(chunk, out=magnitude)
            else:
                magnitude.copy_(chunk).abs_()
            _apply_([_raised_(magnitude, p, floor)], [chunk], p, floor)


def _together_(small: list[Tensor], p: float | Tensor, floor: float) -> None:
    """Transform small gradients together, one chunk at a time."""
    wide = torch.promote_types(small[0].dtype, torch.float32)
    for several in _batches(small):
        raised = _raised_(torch.cat(several).to(wide).abs_(), p, floor)
        parts = raised.split([elements.numel() for elements in several])
        _apply_(parts, several, p, floor)


def _batches(small: list[Tensor]) -> Iterator[list[Tensor]]:
    size = _chunk_size(small[0])
    batch: list[Tensor] = []
    count = 0
    for elements in small:
        if batch and count + elements.numel() > size:
            yield batch
            batch, count = [], 0
        batch.append(elements)
        count += elements.numel()
    yield batch


def _raised_(magnitude: Tensor, p: float | Tensor, floor: float) -> Tensor:
    """Return the power of the magnitude; for p > 1 without a floor, ``|g| ** (p - 1)``.

    The factor ``|g| ** (p - 1)`` has a smaller relative error, but is infinite at 0 for p < 1.
    ``exp2(p * log2 |g|)`` is several times as fast as ``pow`` on a CPU.
    """
    if floor:
        magnitude.add_(floor)
    return _log2_(magnitude).mul_(p - 1 if _is_factor(p, floor) else p).exp2_()


def _log2_(magnitude: Tensor) -> Tensor:
    """Replace the magnitude by its logarithm, with NumPy's kernel where it is the faster one.

    Subclasses, such as the fake tensors of a tracer, have no array.
    """
    is_array = type(magnitude) is Tensor and not torch.compiler.is_compiling()
    is_single_on_cpu = magnitude.dtype == torch.float32 and magnitude.device.type == "cpu"
    if not (is_array and is_single_on_cpu and _numpy_is_faster()):
        return magnitude.log2_()
    array = magnitude.numpy()
    with np.errstate(divide="ignore"):
        np.log2(array, out=array)
    return magnitude


def _numpy_is_faster() -> bool:
    # On one thread, its vectorized logarithm is four times as fast as PyTorch's on one.
    return torch.get_num_threads() <= 4 and _numpy_has_vector_log2()


@functools.cache
def _numpy_has_vector_log2() -> bool:
    """Return whether NumPy's logarithm uses the vector unit, as it does with AVX-512."""
    try:
        from numpy.lib.introspect import opt_func_info
    except ImportError:  # before NumPy 2.1
        return False
    kernels = opt_func_info(func_name="^log2$", signature="float32").get("log2", {})
    return any("baseline" not in kernel["current"] for kernel in kernels.values())


def _apply_(
    raised: list[Tensor] | tuple[Tensor, ...],
    gradients: list[Tensor],
    p: float | Tensor,
    floor: float,
) -> None:
    if floor:
        torch._foreach_sign_(gradients)
        torch._foreach_mul_(gradients, raised)
    elif _is_factor(p, floor):
        torch._foreach_mul_(gradients, raised)
    else:
        for powered, gradient in zip(raised, gradients, strict=True):
            torch.copysign(powered, gradient, out=gradient)


def _is_factor(p: float | Tensor, floor: float) -> bool:
    # The value of a tensor is on its device.
    return not isinstance(p, Tensor) and p > 1 and floor == 0


def _chunk_size(elements: Tensor) -> int:
    if elements.device.type != "cpu":
        return _DEVICE_CHUNK
    return _CPU_CHUNK * (1 if torch.compiler.is_compiling() else torch.get_num_threads())


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


def compiled_sign_power_(elements: Tensor, p: float | Tensor, floor: float) -> None:
    """Replace a one-dimensional gradient by its sign power with one ``torch.compile`` kernel."""
    wide = torch.promote_types(elements.dtype, torch.float32)
    # dynamic=True would turn the constants into inputs and convert them every call.
    torch._dynamo.maybe_mark_dynamic(elements, 0)
    added = torch.tensor(floor, dtype=wide) if floor else None
    _kernel()(elements, torch.as_tensor(p, dtype=wide) - 1, added)


@functools.cache
def _kernel() -> Callable[[Tensor, Tensor, Tensor | None], None]:
    """Return the kernel; exponent and floor are inputs, so new values do not recompile it."""

    def kernel(elements: Tensor, power: Tensor, floor: Tensor | None) -> None:
        wide = elements.to(power.dtype)
        magnitude = wide.abs()
        if floor is not None:
            magnitude = magnitude + floor
        limits = torch.finfo(magnitude.dtype)  # no zero to a negative power
        factor = torch.exp2(power * torch.log2(magnitude.clamp(limits.tiny, limits.max)))
        powered = wide * factor if floor is None else wide.sign() * magnitude * factor
        elements.copy_(powered)

    return torch.compile(kernel, fullgraph=True)
