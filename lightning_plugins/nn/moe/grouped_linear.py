"""``torch.nn.functional.grouped_mm`` made safe: any width, any gradient layout, autocast."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_ALIGNMENT_BYTES = 16
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def supports_grouped_mm(dtype: torch.dtype) -> bool:
    """Whether this torch (2.10 or later has the function) can group products in ``dtype``."""
    return hasattr(functional, "grouped_mm") and dtype in _DTYPES


def traces_grouped_mm(dtype: torch.dtype) -> bool:
    """Whether ``torch.compile`` can trace it in ``dtype``: torch 2.14 cannot in float32.

    Where it cannot, a compiled layer has a graph break around each product.
    """
    return dtype in _TRACED


def _is_traceable(dtype: torch.dtype) -> bool:
    empty = partial(torch.empty, device="meta", dtype=dtype)
    ends = torch.empty(2, device="meta", dtype=torch.int32)
    try:
        functional.grouped_mm(empty(8, 8), empty(2, 8, 8), offs=ends)
    except RuntimeError:
        return False
    return True


# Of the module, not of a call: a compiler that traces a call cannot try one inside.
_TRACED = tuple(dtype for dtype in _DTYPES if supports_grouped_mm(dtype) and _is_traceable(dtype))


def grouped_mm(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """Rows ``(rows, in)``, sorted by expert, times ``weight`` ``(num_experts, in, out)``.

    torch wants strides that are multiples of 16 bytes, so that odd widths are padded with zeros
    here and cut again. It refuses gradients that are expanded, such as that of a sum, so they are
    made contiguous. It does not follow autocast, so operands are cast as a matrix product's are.

    Args:
        rows: float32, bfloat16 or float16.
        weight: of all experts.
        ends: where each expert's rows end, int32 ``(num_experts,)``.
    """
    device = rows.device.type
    if torch.is_autocast_enabled(device):
        rows = rows.to(torch.get_autocast_dtype(device))
    weight = weight.to(rows.dtype)
    in_features, out_features = weight.shape[-2:]
    multiple = _ALIGNMENT_BYTES // rows.dtype.itemsize
    missing_in, missing_out = -in_features % multiple, -out_features % multiple
    if missing_in:
        rows = functional.pad(rows, (0, missing_in))
    if missing_in or missing_out:
        weight = functional.pad(weight, (0, missing_out, 0, missing_in))
    if torch.compiler.is_compiling() and not traces_grouped_mm(rows.dtype):
        product = _untraced_grouped_mm(rows.contiguous(), weight, ends)
    else:
        product = functional.grouped_mm(rows.contiguous(), weight, offs=ends)
    product = _ContiguousGradient.apply(product)
    return product[:, :out_features] if missing_out else product


@torch.compiler.disable
def _untraced_grouped_mm(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    return functional.grouped_mm(rows, weight, offs=ends)


class _ContiguousGradient(torch.autograd.Function):
    """The identity; its gradient comes out contiguous."""

    @staticmethod
    def forward(tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous()
