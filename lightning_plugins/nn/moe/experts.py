"""Experts: equally shaped multilayer perceptrons whose weights are stacked."""

import itertools
import math
from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, silu

Activation = Literal["relu", "swiglu"]


class ExpertLinear(Protocol):
    """One linear layer of every expert, applied to the rows that each expert was given."""

    def __call__(self, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """``rows @ weight + bias``: ``(num_experts, in, out)`` and ``(num_experts, out)``.

        How rows and experts belong together is the back-end's business.
        """


class Experts(nn.Module):
    """Multilayer perceptrons with stacked weights.

    Layer j of expert e is ``rows @ weights[j][e] + biases[j][e]``, with the activation between
    layers. ``swiglu`` makes hidden layers twice as wide and multiplies ``silu`` of the first half
    with the second (Shazeer, arXiv 2002.05202, equation 6).

    With ``encoder_features`` every expert first maps its rows linearly to that many features, which
    is the low-dimensional expert that Wang and E (arXiv 2505.24205) suggest; a linear decoder makes
    :meth:`reconstruction_error` possible.

    Args:
        num_experts: experts.
        features: of the input, of each hidden layer, and of the output.
        activation: between layers.
        bias: whether layers have one.
        encoder_features: of the encoder; None is without one.
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
        """Outputs of the experts for their rows."""
        if self.encoder is not None:
            rows = linear(rows, self.encoder, None)
        for layer, weight in enumerate(self.weights):
            if layer:
                rows = self._activate(rows)
            rows = linear(rows, weight, self.biases[layer] if len(self.biases) else None)
        return rows

    def reconstruction_error(self, rows: Tensor, linear: ExpertLinear) -> Tensor:
        """Mean squared error of decoding the encoded rows, one value a row ``(..., 1)``."""
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
    """As ``torch.nn.Linear`` is initialised."""
    bound = 1 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
