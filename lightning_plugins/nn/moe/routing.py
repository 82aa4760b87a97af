"""Gates that score experts, and the selection of the best experts of each token."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

GateWeighting = Literal["softmax_all", "softmax_topk"]
GATE_WEIGHTINGS = ("softmax_all", "softmax_topk")


@dataclass(frozen=True)
class Routing:
    """The assignment of tokens to experts by a gate.

    Attributes:
        logits: Scores of the gate ``(tokens, num_experts)``.
        experts: Selected experts, best first, int64 ``(tokens, top_k)``.
        weights: Weights of the experts' outputs in the sum, ``(tokens, top_k)``.
    """

    logits: Tensor
    experts: Tensor
    weights: Tensor

    @property
    def scores(self) -> Tensor:
        """The logits in at least single precision."""
        return at_least_single(self.logits)

    @property
    def num_experts(self) -> int:
        """Number of experts that the gate selects from."""
        return self.logits.shape[-1]


def route(logits: Tensor, top_k: int, gate_weighting: GateWeighting) -> Routing:
    """Select the ``top_k`` experts with the largest scores and compute their weights.

    ``softmax_all`` uses the softmax over all experts: the weights sum to less than 1, and the gate
    receives a gradient even if only one expert is selected (Fedus et al., Switch Transformers,
    arXiv 2101.03961, section 2.1). ``softmax_topk`` uses the softmax over the selected experts
    (Shazeer et al., arXiv 1701.06538, equations 3 to 5; Wang and E, arXiv 2505.24205, section 3);
    with ``top_k=1`` the weight is the constant 1.

    Args:
        logits: Scores ``(tokens, num_experts)``.
        top_k: Experts per token.
        gate_weighting: ``softmax_all`` or ``softmax_topk``.
    """
    # A softmax in half precision would change the selection.
    scores = at_least_single(logits)
    best, experts = scores.topk(top_k, dim=-1)
    if gate_weighting == "softmax_topk":
        weights = best.softmax(dim=-1)
    else:
        weights = scores.softmax(dim=-1).gather(-1, experts)
    return Routing(logits, experts, weights)


def at_least_single(tensor: Tensor) -> Tensor:
    """Convert half precision to single precision; return other tensors unchanged."""
    return tensor if tensor.dtype.itemsize >= 4 else tensor.float()


GateName = Literal["linear", "affine", "mlp", "cosine"]


def build_gate(
    name: GateName, in_features: int, num_experts: int, hidden_features: int
) -> nn.Module:
    """Build a gate by name: ``(tokens, in_features)`` to scores ``(tokens, num_experts)``.

    ``linear`` has no bias, as in Wang and E (arXiv 2505.24205, section 3), so its regions are
    cones. ``affine`` has a bias, so its regions are the cells of a power diagram. ``mlp`` has one
    hidden ReLU layer of ``hidden_features``; ``cosine`` compares directions in ``hidden_features``
    dimensions.

    Raises:
        ValueError: The name is unknown.
    """
    if name == "linear":
        return nn.Linear(in_features, num_experts, bias=False)
    if name == "affine":
        return nn.Linear(in_features, num_experts)
    if name == "mlp":
        return nn.Sequential(
            nn.Linear(in_features, hidden_features),
            nn.ReLU(),
            nn.Linear(hidden_features, num_experts),
        )
    if name == "cosine":
        return CosineGate(in_features, num_experts, hidden_features)
    raise ValueError(f"gate={name!r}: expected 'linear', 'affine', 'mlp' or 'cosine'")


class CosineGate(nn.Module):
    """Scores experts by the angle between the projected token and a direction per expert.

    ``score_i = cos(W x, e_i) / temperature`` with a learned temperature that starts at 0.07 and is
    clamped to at least 0.01.

    Source: Chi et al., On the Representation Collapse of Sparse Mixture of Experts, NeurIPS 2022,
    arXiv 2204.09179.

    Args:
        in_features: Features of a token.
        num_experts: Number of directions.
        hidden_features: Dimension of the space in which angles are computed.
    """

    def __init__(self, in_features: int, num_experts: int, hidden_features: int) -> None:
        super().__init__()
        self.projection = nn.Linear(in_features, hidden_features, bias=False)
        self.directions = nn.Parameter(torch.randn(num_experts, hidden_features))
        self.temperature = nn.Parameter(torch.tensor(0.07))

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute scores ``(tokens, num_experts)``."""
        cosine = normalize(self.projection(tokens), dim=-1) @ normalize(self.directions, dim=-1).T
        return cosine / self.temperature.clamp(min=0.01)
