"""Gates: from a token to one score an expert."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

GateName = Literal["linear", "affine", "mlp", "cosine"]


def build_gate(
    name: GateName, in_features: int, num_experts: int, hidden_features: int
) -> nn.Module:
    """The gate of that name: ``(tokens, in_features)`` to scores ``(tokens, num_experts)``.

    ``linear`` has no bias, as in Wang and E (arXiv 2505.24205, section 3): its regions are cones.
    ``affine`` has one: its regions are the cells of a power diagram. ``mlp`` has one hidden ReLU
    layer of ``hidden_features``; ``cosine`` compares directions in that many dimensions.

    Raises:
        ValueError: an unknown name, naming those that exist.
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
    """Scores by the angle between the projected token and a direction for each expert.

    ``score_i = cos(W x, e_i) / temperature`` with a learned temperature that starts at 0.07 and is
    kept at 0.01 or more.

    Source: Chi et al., On the Representation Collapse of Sparse Mixture of Experts, NeurIPS 2022,
    arXiv 2204.09179, equations 4 and 5.

    Args:
        in_features: of a token.
        num_experts: directions.
        hidden_features: dimensions in which angles are taken.
    """

    def __init__(self, in_features: int, num_experts: int, hidden_features: int) -> None:
        super().__init__()
        self.projection = nn.Linear(in_features, hidden_features, bias=False)
        self.directions = nn.Parameter(torch.randn(num_experts, hidden_features))
        self.temperature = nn.Parameter(torch.tensor(0.07))

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores ``(tokens, num_experts)``."""
        cosine = normalize(self.projection(tokens), dim=-1) @ normalize(self.directions, dim=-1).T
        return cosine / self.temperature.clamp(min=0.01)
