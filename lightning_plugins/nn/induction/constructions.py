"""Transformers with constructed weights that are induction heads without training."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_plugins.nn.induction.mixture import forgetting_weights
from lightning_plugins.nn.induction.ngrams import Similarity


class ConstructedInductionHead(nn.Module):
    """Two attention layers without FFN that compute ``IH_n`` up to the error of the first layer.

    The first layer has ``H`` heads that attend by position alone: the token ``j`` steps back has a
    weight proportional to ``e^{-β_h (j-1)}``, and the current token has none. The output matrix
    combines the heads into the previous ``n - 1`` tokens. The second layer has one head, which
    matches patches with ``W*`` and reads the next token, like ``in_context_n_gram``. With an FFN in
    the similarity, as in :class:`SeparatedSimilarity`, the network is the paper's ``GIH_n`` (Wang
    et al., arXiv 2410.11474).

    For ``n = 2`` one head with ``β = p`` is sufficient: the error of every previous token is at
    most ``2 e^{-p}/(1 - e^{-p})`` times the largest token, at every length.

    For larger ``n`` the combination solves ``Σ_h c_h w_h(j) = 1{j = z}`` in least squares, with
    the weights of an infinite past, ``w_h(j) = (1 - e^{-β_h}) e^{-β_h (j-1)}``. At position ``s``
    the true normalizer is smaller by the factor ``1 - e^{-β_h s}``, which adds an error at early
    positions; the paper's proof omits this factor, as a public review points out. With
    ``exact_normalizer`` the factor is compensated at each position, which a transformer with this
    position encoding cannot do. The method's card reports the difference.

    Args:
        dim: Dimension of a token.
        n: Number of matched tokens plus the one that is read; at least 2.
        similarity: Similarity of patches, as in ``in_context_n_gram``.
        heads: Heads of the first layer, at least ``n - 1``.
        beta: Smallest decay rate; the heads have ``beta, 2 beta, …``.
        fit_length: Positions in the least-squares fit.
        exact_normalizer: Compensate the dependence of the normalizer on the position.

    Raises:
        ValueError: An argument is outside its range.
    """

    def __init__(
        self,
        dim: int,
        n: int,
        similarity: Similarity,
        heads: int = 1,
        beta: float = 10.0,
        fit_length: int = 200,
        exact_normalizer: bool = False,
    ) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"dim={dim}: expected at least 1")
        if n < 2:
            raise ValueError(f"n={n}: expected at least 2")
        if heads < n - 1:
            raise ValueError(
                f"heads={heads}: expected at least n - 1 = {n - 1}, one for each previous token"
            )
        if not 0 < beta < math.inf:
            raise ValueError(f"beta={beta}: expected a rate above 0")
        self.n = n
        self.similarity = similarity
        self.exact_normalizer = exact_normalizer
        self.register_buffer("rates", beta * torch.arange(1, heads + 1, dtype=torch.float64))
        self.register_buffer("combination", shift_combination(self.rates, n - 1, fit_length))
        self.rates: Tensor
        self.combination: Tensor

    def shifted(self, tokens: Tensor) -> Tensor:
        """Compute the output of the first layer, approximately the tokens ``s-1, …, s-n+1``.

        Args:
            tokens: Sequences, float64 ``(batch, length, dim)``.

        Returns:
            Previous tokens ``(batch, length, n - 1, dim)``. Positions with fewer than ``n - 1``
            previous tokens combine the existing ones.
        """
        length = tokens.shape[1]
        heads = torch.stack([forgetting_weights(rate, length) for rate in self.rates])
        if self.exact_normalizer:
            past = torch.arange(length, dtype=torch.float64, device=tokens.device)
            heads = heads * -torch.expm1(-self.rates[:, None, None] * past[:, None])
        kernels = torch.einsum("zh,hst->zst", self.combination, heads)
        return torch.einsum("zst,btd->bszd", kernels, tokens)

    def forward(self, tokens: Tensor) -> Tensor:
        """Approximate ``IH_n``, ``(batch, dim)``, for float64 tokens ``(batch, length, dim)``.

        Raises:
            ValueError: The sequences are too short to contain an earlier patch and the token after
                it.
        """
        length = tokens.shape[1]
        if length < self.n + 1:
            raise ValueError(f"length={length}: expected at least n + 1 = {self.n + 1} tokens")
        before = self.shifted(tokens)
        # The patch before token s, oldest first: its tokens s-n+1, …, s-1.
        keys = before[:, self.n - 1 : -1].flip(2).flatten(2)
        # The last patch ends with the current token, which requires no shift.
        last = torch.cat([tokens[:, -1:], before[:, -1, : self.n - 2]], dim=1)
        weights = self.similarity(last.flip(1).flatten(1), keys).softmax(dim=-1)
        return (weights[..., None] * tokens[:, self.n - 1 : -1]).sum(dim=1)


def shift_combination(rates: Tensor, shifts: int, length: int) -> Tensor:
    """Fit coefficients ``(shifts, heads)`` with ``Σ_h c_zh w_h(j) ≈ 1{j = z}``, ``j = 1 … length``.

    ``w_h(j) = (1 - e^{-β_h}) e^{-β_h (j-1)}`` is the attention of a head with an infinite past. The
    least-squares problem is solved in float64. It is ill-conditioned; singular values below
    ``1e-12`` of the largest are ignored.
    """
    place = torch.arange(length, dtype=torch.float64)
    weights = -torch.expm1(-rates) * torch.exp(-rates * place[:, None])  # (length, heads)
    targets = torch.eye(length, shifts, dtype=torch.float64)
    return torch.linalg.lstsq(weights, targets, rcond=1e-12, driver="gelsd").solution.T


class SeparatedSimilarity(nn.Module):
    """Approximates ``g(u, v) ≈ Σ_{k≤r} φ_k(u) ψ_k(v)`` with one-layer ReLU networks φ and ψ.

    ``φ`` and ``ψ`` are the singular functions of ``g`` on a grid. Between the grid points the
    networks interpolate linearly: ``φ(u) = Σ_i a_i ReLU(u - t_i)``. In the same way, the paper uses
    an FFN to turn a general similarity into one that attention can compute. The error depends on
    the rank and on the number of knots. Only patches of a single feature (scalar tokens, ``n = 2``)
    are supported, because their networks are known in closed form.

    Args:
        similarity: ``g`` of float64 tensors that broadcast.
        rank: Number of products, ``r``.
        knots: Width of the networks; at least ``rank``.
        reach: The approximation covers features in ``[-reach, reach]``.

    Raises:
        ValueError: An argument is outside its range.
    """

    def __init__(
        self, similarity: Callable[[Tensor, Tensor], Tensor], rank: int, knots: int, reach: float
    ) -> None:
        super().__init__()
        if not 1 <= rank <= knots or knots < 2:
            raise ValueError(f"rank={rank}: expected 1 to knots={knots}, and at least 2 knots")
        if not 0 < reach < math.inf:
            raise ValueError(f"reach={reach}: expected a number above 0")
        grid = torch.linspace(-reach, reach, knots, dtype=torch.float64)
        left, sizes, right = torch.linalg.svd(similarity(grid[:, None], grid))
        roots = sizes[:rank].sqrt()
        self.query_network = interpolating_network(grid, left[:, :rank] * roots)
        self.key_network = interpolating_network(grid, right[:rank].T * roots)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Compute ``(batch, keys)`` for a query ``(batch, 1)`` and keys ``(batch, keys, 1)``."""
        return (self.query_network(query)[:, None] * self.key_network(keys)).sum(dim=-1)


def interpolating_network(knots: Tensor, values: Tensor) -> nn.Sequential:
    """Build the ReLU network with one hidden layer that interpolates linearly between knots.

    Args:
        knots: Increasing float64 ``(width,)``; the network is constant before the first knot.
        values: Values at the knots, ``(width, outputs)``.
    """
    width, outputs = values.shape
    hidden = nn.Linear(1, width, dtype=torch.float64)
    output = nn.Linear(width, outputs, dtype=torch.float64)
    slopes = values.diff(dim=0) / knots.diff()[:, None]
    zero = slopes.new_zeros(1, outputs)
    with torch.no_grad():
        hidden.weight.fill_(1.0)
        hidden.bias.copy_(-knots)
        output.weight.copy_(torch.cat([slopes, zero]).diff(dim=0, prepend=zero).T)
        output.bias.copy_(values[0])
    return nn.Sequential(hidden, nn.ReLU(), output).requires_grad_(False)
