"""Experts: multilayer perceptrons of equal shape with stacked weights."""

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import relu, silu

Activation = Literal["relu", "swiglu"]


class ExpertLinear(Protocol):
    """Applies one linear layer of every expert to the rows of that expert."""

    def __call__(self, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Compute ``rows @ weight + bias``.

        Args:
            rows: Rows of all experts, arranged as the back-end requires.
            weight: Weights ``(num_experts, in, out)``.
            bias: Biases ``(num_experts, out)``.
        """


class Experts(nn.Module):
    """Multilayer perceptrons with stacked weights.

    Layer j of expert e computes ``rows @ weights[j][e] + biases[j][e]``, with the activation
    between layers. ``swiglu`` doubles the width of hidden layers and multiplies ``silu`` of the
    first half by the second half (Shazeer, arXiv 2002.05202, equation 6).

    With ``encoder_features`` every expert first maps its rows linearly to a smaller number of
    features, the low-dimensional expert that Wang and E (arXiv 2505.24205) suggest. A linear
    decoder computes the :meth:`reconstruction_error`.

    Args:
        num_experts: Number of experts.
        features: Features of the input, of each hidden layer, and of the output.
        activation: Activation between layers.
        bias: Whether layers have a bias.
        encoder_features: Features of the encoder; None disables it.
    """

    def __init__(
        self,
        num_experts: int,
        features: Sequence[int],
        activation: Activation = "relu",
        bias: bool = True,
        encoder_features: int | None = None,
    ) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.activation = activation
        in_features = features[0]
        self.encoder = self.decoder = None
        if encoder_features is not None:
            self.encoder = _uniform(num_experts, in_features, encoder_features, fan_in=in_features)
            self.decoder = _uniform(
                num_experts, encoder_features, in_features, fan_in=encoder_features
            )
        sizes = [encoder_features or in_features, *features[1:]]
        last = len(sizes) - 2
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for layer, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
            widened = 2 * outputs if activation == "swiglu" and layer < last else outputs
            self.weights.append(_uniform(num_experts, inputs, widened, fan_in=inputs))
            if bias:
                self.biases.append(_uniform(num_experts, widened, fan_in=inputs))

    def forward(self, rows: Tensor, linear: ExpertLinear) -> Tensor:
        """Compute the outputs of the experts for their rows."""
        if self.encoder is not None:
            rows = linear(rows, self.encoder, None)
        for layer, weight in enumerate(self.weights):
            if layer:
                rows = self._activate(rows)
            rows = linear(rows, weight, self.biases[layer] if len(self.biases) else None)
        return rows

    def reconstruction_error(self, rows: Tensor, linear: ExpertLinear) -> Tensor:
        """Compute the mean squared error of the decoded rows, one value per row ``(..., 1)``."""
        assert self.encoder is not None
        assert self.decoder is not None
        decoded = linear(linear(rows, self.encoder, None), self.decoder, None)
        return (decoded - rows).square().mean(dim=-1, keepdim=True)

    def _activate(self, rows: Tensor) -> Tensor:
        if self.activation == "relu":
            return relu(rows)
        gated, plain = rows.chunk(2, dim=-1)
        return silu(gated) * plain


def _uniform(*shape: int, fan_in: int) -> nn.Parameter:
    """Initialize like ``torch.nn.Linear``."""
    bound = 1 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


_ALIGNMENT_BYTES = 16
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def supports_grouped_mm(dtype: torch.dtype) -> bool:
    """Whether torch has ``grouped_mm`` (2.10 or later) and supports it in ``dtype``."""
    return hasattr(functional, "grouped_mm") and dtype in _DTYPES


def traces_grouped_mm(dtype: torch.dtype) -> bool:
    """Whether ``torch.compile`` traces ``grouped_mm`` in ``dtype``; torch 2.14 fails in float32.

    Otherwise a compiled layer has a graph break at each product.
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


# Evaluated at import, because the check cannot run inside a traced call.
_TRACED = tuple(dtype for dtype in _DTYPES if supports_grouped_mm(dtype) and _is_traceable(dtype))


def grouped_mm(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """Multiply each expert's rows by its weight with ``torch.nn.functional.grouped_mm``.

    torch requires strides in multiples of 16 bytes, so other widths are padded with zeros. It
    rejects expanded gradients, such as that of a sum, so they are made contiguous. It ignores
    autocast, so operands are cast like those of a matrix product.

    Args:
        rows: Rows ``(rows, in)`` sorted by expert, in float32, bfloat16 or float16.
        weight: Weights of all experts ``(num_experts, in, out)``.
        ends: End of each expert's rows, int32 ``(num_experts,)``.
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
    """The identity with a contiguous gradient."""

    @staticmethod
    def forward(tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous()
