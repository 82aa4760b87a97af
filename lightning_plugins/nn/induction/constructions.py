"""Transformers that are induction heads by construction, without training."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_plugins.nn.induction.mixture import forgetting_weights
from lightning_plugins.nn.induction.ngrams import Similarity


class ConstructedInductionHead(nn.Module):
    """Two attention layers without FFN that compute ``IH_n`` up to the error of the first layer.

    The first layer has ``H`` heads that attend by place alone, with weights in proportion to
    ``e^{-β_h (j-1)}`` over the tokens ``j`` before, without the current one. Its output matrix
    combines them into the tokens 1, …, n-1 before. The second layer has one head: it matches
    patches by ``W*`` and reads the token, as ``in_context_n_gram`` does. With an FFN in the
    similarity, as :class:`SeparatedSimilarity` has one, it is the paper's ``GIH_n`` (Wang et al.,
    arXiv 2410.11474).

    For ``n = 2`` one head with ``β = p`` is enough: every token that is handed on is off by at most
    ``2 e^{-p}/(1 - e^{-p})`` times the largest one, at every length.

    For larger ``n`` the combination solves ``Σ_h c_h w_h(j) = 1{j = z}`` in least squares, with
    the weights of an infinite past, ``w_h(j) = (1 - e^{-β_h}) e^{-β_h (j-1)}``. At place ``s`` the
    true normalizer is smaller by the factor ``1 - e^{-β_h s}``, by which early places carry an
    error of their own; the paper's proof leaves it out, as a public review remarks. With
    ``exact_normalizer`` the factor is undone at each place, which a transformer with this position
    encoding cannot do: the difference is the gap, and it is measured on the method's card.

    Args:
        dim: of a token.
        n: tokens that count in a match, the one that is read included; at least 2.
        similarity: of patches, as in ``in_context_n_gram``.
        heads: of the first layer, at least ``n - 1``.
        beta: slowest rate of forgetting; the heads have ``beta, 2 beta, …``.
        fit_length: places over which the least squares are taken.
        exact_normalizer: undo the dependence of the normalizer on the place.

    Raises:
        ValueError: an argument outside its range.
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
                f"heads={heads}: expected at least n - 1 = {n - 1}, one for each token to reach"
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
        """What the first layer writes: approximately the tokens ``s-1, …, s-n+1``.

        Args:
            tokens: float64 ``(batch, length, dim)``.

        Returns:
            ``(batch, length, n - 1, dim)``; where the sequence does not reach back, what the heads
            make of the tokens that there are.
        """
        length = tokens.shape[1]
        heads = torch.stack([forgetting_weights(rate, length) for rate in self.rates])
        if self.exact_normalizer:
            past = torch.arange(length, dtype=torch.float64, device=tokens.device)
            heads = heads * -torch.expm1(-self.rates[:, None, None] * past[:, None])
        kernels = torch.einsum("zh,hst->zst", self.combination, heads)
        return torch.einsum("zst,btd->bszd", kernels, tokens)

    def forward(self, tokens: Tensor) -> Tensor:
        """``IH_n`` approximately, ``(batch, dim)``, of float64 tokens ``(batch, length, dim)``.

        Raises:
            ValueError: sequences that hold no earlier patch with a token after it.
        """
        length = tokens.shape[1]
        if length < self.n + 1:
            raise ValueError(f"length={length}: expected at least n + 1 = {self.n + 1} tokens")
        before = self.shifted(tokens)
        # The patch before token s, oldest first: its tokens s-n+1, …, s-1.
        keys = before[:, self.n - 1 : -1].flip(2).flatten(2)
        # The last patch ends with the current token, which needs no shift.
        last = torch.cat([tokens[:, -1:], before[:, -1, : self.n - 2]], dim=1)
        weights = self.similarity(last.flip(1).flatten(1), keys).softmax(dim=-1)
        return (weights[..., None] * tokens[:, self.n - 1 : -1]).sum(dim=1)


def shift_combination(rates: Tensor, shifts: int, length: int) -> Tensor:
    """Coefficients ``(shifts, heads)`` with ``Σ_h c_zh w_h(j) ≈ 1{j = z}`` for ``j = 1 … length``.

    ``w_h(j) = (1 - e^{-β_h}) e^{-β_h (j-1)}``, the attention of a head with an infinite past. Least
    squares by QR in float64; the exponentials are ill-conditioned, and singular directions below
    ``1e-12`` of the largest are left out.
    """
    place = torch.arange(length, dtype=torch.float64)
    weights = -torch.expm1(-rates) * torch.exp(-rates * place[:, None])  # (length, heads)
    targets = torch.eye(length, shifts, dtype=torch.float64)
    return torch.linalg.lstsq(weights, targets, rcond=1e-12, driver="gelsd").solution.T


class SeparatedSimilarity(nn.Module):
    """``g(u, v) ≈ Σ_{k≤r} φ_k(u) ψ_k(v)``, with ``φ`` and ``ψ`` as ReLU networks of one layer.

    ``φ`` and ``ψ`` are the singular functions of ``g`` on a grid, between whose points the networks
    interpolate linearly: ``φ(u) = Σ_i a_i ReLU(u - t_i)``. This is how the paper lets an FFN turn a
    general similarity into one that attention can compute. The error has two parts, of the rank and
    of the knots. Only for patches of a single feature (scalar tokens, ``n = 2``), for which the
    networks are known in closed form.

    Args:
        similarity: ``g`` of float64 tensors that broadcast.
        rank: ``r``, products that are kept.
        knots: of the networks, their width; at least ``rank``.
        reach: ``g`` is approximated for features in ``[-reach, reach]``.

    Raises:
        ValueError: an argument outside its range.
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
        """``(batch, keys)`` of a query ``(batch, 1)`` and keys ``(batch, keys, 1)``."""
        return (self.query_network(query)[:, None] * self.key_network(keys)).sum(dim=-1)


def interpolating_network(knots: Tensor, values: Tensor) -> nn.Sequential:
    """The ReLU network of one hidden layer that is linear between its values at the knots.

    Args:
        knots: float64 ``(width,)``, increasing; what lies before the first counts as the first.
        values: ``(width, outputs)``.
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
