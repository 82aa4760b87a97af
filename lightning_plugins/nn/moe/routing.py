"""Gates that score experts, and the selection of the best experts of each token."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

GateWeighting = Literal["softmax_all", "softmax_topk", "sigmoid_all", "sigmoid_topk"]
GATE_WEIGHTINGS = ("softmax_all", "softmax_topk", "sigmoid_all", "sigmoid_topk")


@dataclass(frozen=True)
class Routing:
    """The assignment of tokens to experts by a gate.

    Attributes:
        logits: Scores of the gate ``(tokens, num_experts)``.
        experts: Selected experts, best first, int64 ``(tokens, top_k)``.
        weights: Weights of the experts' outputs in the sum, ``(tokens, top_k)``.
        dropped: Whether an expert had no capacity left, bool ``(tokens, top_k)``; the weight is
            then 0. None without a capacity.
    """

    logits: Tensor
    experts: Tensor
    weights: Tensor
    dropped: Tensor | None = None

    @property
    def scores(self) -> Tensor:
        """The logits in at least single precision."""
        return at_least_single(self.logits)

    @property
    def num_experts(self) -> int:
        """Number of experts that the gate selects from."""
        return self.logits.shape[-1]


def route(
    logits: Tensor, top_k: int, gate_weighting: GateWeighting, bias: Tensor | None = None
) -> Routing:
    """Select the ``top_k`` experts with the largest scores and compute their weights.

    ``softmax_all`` uses the softmax over all experts: the weights sum to less than 1, and the gate
    receives a gradient even if only one expert is selected (Fedus et al., Switch Transformers,
    arXiv 2101.03961, section 2.1). ``softmax_topk`` uses the softmax over the selected experts
    (Shazeer et al., arXiv 1701.06538, equations 3 to 5; Wang and E, arXiv 2505.24205, section 3);
    with ``top_k=1`` the weight is the constant 1. ``sigmoid_all`` uses the sigmoid of each score,
    ``sigmoid_topk`` divides it by the sum over the selected experts (DeepSeek-V3, arXiv 2412.19437,
    equations 13 to 15).

    Args:
        logits: Scores ``(tokens, num_experts)``.
        top_k: Experts per token.
        gate_weighting: ``softmax_all``, ``softmax_topk``, ``sigmoid_all`` or ``sigmoid_topk``.
        bias: Added to the softmax or sigmoid for the selection, not for the weights,
            ``(num_experts,)``.
    """
    # A softmax in half precision would change the selection.
    scores = at_least_single(logits)
    is_sigmoid = gate_weighting.startswith("sigmoid")
    if bias is None and not is_sigmoid:
        best, experts = scores.topk(top_k, dim=-1)
        if gate_weighting == "softmax_topk":
            return Routing(logits, experts, best.softmax(dim=-1))
        return Routing(logits, experts, scores.softmax(dim=-1).gather(-1, experts))
    scores = scores.sigmoid() if is_sigmoid else scores.softmax(dim=-1)
    experts = (scores if bias is None else scores + bias).topk(top_k, dim=-1).indices
    weights = scores.gather(-1, experts)
    if gate_weighting.endswith("topk"):
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return Routing(logits, experts, weights)


class SelectionRouter(nn.Module):
    """Selects experts by the scores of a gate; callbacks read its output by hooks.

    Args:
        num_experts: Number of experts.
        top_k: Experts per token.
        gate_weighting: As in :func:`route`.
        has_bias: Whether a bias is added to the scores for the selection, which
            ``RouterBiasBalancing`` moves.
    """

    def __init__(
        self, num_experts: int, top_k: int, gate_weighting: GateWeighting, has_bias: bool
    ) -> None:
        super().__init__()
        self.top_k = top_k
        self.gate_weighting = gate_weighting
        self.expert_bias: Tensor | None
        self.register_buffer("expert_bias", torch.zeros(num_experts) if has_bias else None)

    def forward(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, weights and experts of scores ``(tokens, num_experts)``."""
        found = route(logits, self.top_k, self.gate_weighting, self.expert_bias)
        return found.logits, found.weights, found.experts


def limit_capacity(routing: Routing, capacity_factor: float) -> Routing:
    """Drop the assignments beyond the capacity of each expert.

    An expert accepts ``ceil(capacity_factor * tokens * top_k / num_experts)`` assignments: the
    first choices of all tokens in order, then the second choices, and so on. A dropped assignment
    has the weight 0.

    Source: Lepikhin et al., GShard, arXiv 2006.16668, algorithm 1; Fedus et al., Switch
    Transformers, arXiv 2101.03961, equation 3.
    """
    tokens, top_k = routing.experts.shape
    share = capacity_factor * tokens * top_k / routing.num_experts
    capacity = math.ceil(share * (1 - 1e-12))  # 1.1 * 100 / 10 is a little more than 11
    in_order = routing.experts.T.flatten()
    grouped, order = in_order.sort(stable=True)
    place = torch.arange(len(order), device=order.device)
    start = torch.searchsorted(grouped, grouped)
    dropped = torch.empty_like(order, dtype=torch.bool)
    dropped[order] = place - start >= capacity
    dropped = dropped.unflatten(0, (top_k, tokens)).T
    return replace(routing, weights=routing.weights.masked_fill(dropped, 0), dropped=dropped)


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
