"""What an induction head computes: the token that followed earlier copies of the last tokens."""

from collections.abc import Callable

from torch import Tensor

Similarity = Callable[[Tensor, Tensor], Tensor]
"""From a query ``(batch, features)`` and keys ``(batch, keys, features)`` to ``(batch, keys)``."""


def in_context_n_gram(tokens: Tensor, similarity: Similarity, n: int = 2) -> Tensor:
    """``IH_n``: the average of earlier tokens, weighted by how alike the ``n - 1`` before them are.

    With the patch ``P_s = (x_{s-n+1}, …, x_{s-1})`` before token ``s`` (from 1) the value is
    ``Σ_{s=n}^{L-1} softmax_s(g(P_{L+1}, P_s)) x_s``. A bilinear ``g`` is the paper's ``IH_n``, any
    other its ``GIH_n`` (Wang et al., arXiv 2410.11474).

    Args:
        tokens: ``(batch, length, dim)``.
        similarity: ``g``, of patches flattened in the order of time, ``(n - 1)·dim`` features.
        n: tokens that count, the one that is read included; at least 2.

    Returns:
        ``(batch, dim)``.

    Raises:
        ValueError: ``n`` below 2, or sequences that hold no earlier patch with a token after it.
    """
    length = tokens.shape[1]
    if n < 2:
        raise ValueError(f"n={n}: expected at least 2, a token to match and one to read")
    if length < n + 1:
        raise ValueError(f"length={length}: expected at least n + 1 = {n + 1} tokens")
    patches = tokens.unfold(1, n - 1, 1).transpose(2, 3).flatten(2)  # (batch, L-n+2, (n-1)·dim)
    weights = similarity(patches[:, -1], patches[:, :-2]).softmax(dim=-1)
    return (weights[..., None] * tokens[:, n - 1 : -1]).sum(dim=1)


def bilinear(weight: Tensor) -> Similarity:
    """The similarity ``qᵀ W k``, with ``weight`` of shape ``(features, features)``."""
    return lambda query, keys: (keys @ (query @ weight)[..., None])[..., 0]


def four_gram(tokens: Tensor) -> Tensor:
    """``x_{L-2}`` of tokens ``(batch, length, …)``: a fixed place, whatever stands there.

    The paper calls reading it a 4-gram: of the next token, it is the third before.
    """
    return tokens[:, -3]
