"""The two-layer transformer of six numbers on which the transition can be computed by hand."""

import math

import torch
from torch import Tensor, nn

FIRST_LAYER = ("p1", "w1")
SECOND_LAYER = ("p2", "v1", "k", "v2")


class MixtureTransformer(nn.Module):
    """Two attention layers on scalar tokens ``x_1 … x_L``, with one number for each matrix.

    ====== ============================================================================
    number what it is
    ====== ============================================================================
    ``p1`` how fast the first layer's head forgets: it weighs ``x_{s-j}`` by ``e^{-p1 (j-1)}``
    ``w1`` the first layer's value: ``y_s = w1 Σ_j softmax_j(-p1 (j-1)) x_{s-j}``
    ``p2`` the same forgetting in the second layer's positional head
    ``v1`` its value: ``v1 Σ_s softmax_s(-p2 (L-1-s)) y_s``
    ``k``  query times key of the second layer's content head, which sees ``k²``
    ``v2`` its value: ``v2 Σ_s softmax_s(k² x_L y_s) x_s``
    ====== ============================================================================

    ``s`` runs over ``2 … L-1``. The positional head can become the 4-gram, the content head an
    induction head, once the first layer hands on the token before. ``k`` and ``w1`` act on the
    content head only through ``k² w1``. Position encoding (exclusive, as in ALiBi) and target are
    those of Wang et al., arXiv 2410.11474.

    Args:
        sigma_init: what every number starts from, > 0.

    Raises:
        ValueError: ``sigma_init`` is not positive.
    """

    p1: nn.Parameter
    w1: nn.Parameter
    p2: nn.Parameter
    v1: nn.Parameter
    k: nn.Parameter
    v2: nn.Parameter

    def __init__(self, sigma_init: float = 0.01) -> None:
        super().__init__()
        if not 0 < sigma_init < math.inf:
            raise ValueError(f"sigma_init={sigma_init}: expected a number above 0")
        for name in (*FIRST_LAYER, *SECOND_LAYER):
            self.register_parameter(name, nn.Parameter(torch.tensor(float(sigma_init))))

    @torch.no_grad()
    def idealize_first_layer(self) -> None:
        """Put the first layer at its limit: ``y_s = x_{s-1}``, exactly in single precision."""
        self.p1.fill_(40.0)  # e^-40 is below half a unit in the last place of 1
        self.w1.fill_(1.0)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The 4-gram part and the induction part, each ``(batch,)``, of tokens ``(batch, L)``.

        Raises:
            ValueError: fewer than 4 tokens.
        """
        length = tokens.shape[-1]
        if length < 4:
            raise ValueError(f"length={length}: expected at least 4 tokens, for x_{{L-2}}")
        previous = self.w1 * tokens @ forgetting_weights(self.p1, length).T
        past, last = slice(1, length - 1), tokens[:, -1:]
        distance = torch.arange(length - 3, -1, -1, device=tokens.device)
        by_place = torch.softmax(-self.p2 * distance, dim=0)
        by_content = torch.softmax(self.k**2 * last * previous[:, past], dim=-1)
        four_gram_part = self.v1 * previous[:, past] @ by_place
        return four_gram_part, self.v2 * (by_content * tokens[:, past]).sum(dim=-1)


def forgetting_weights(p: Tensor, length: int) -> Tensor:
    """Attention ``(length, length)`` that weighs the j-th token before by ``e^{-p(j-1)}``.

    A token does not see itself; the first one sees nothing, and its row is zero.
    """
    place = torch.arange(length, device=p.device)
    back = place[1:, None] - place
    logits = torch.where(back > 0, -p * (back - 1), -torch.inf)
    return nn.functional.pad(torch.softmax(logits, dim=-1), (0, 0, 1, 0))
