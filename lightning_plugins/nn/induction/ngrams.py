"""What an induction head and n-gram counts predict from the context."""

from collections.abc import Callable

import torch
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


_NAMES = ("unigram", "bigram", "trigram")


def ngram_name(order: int) -> str:
    """Of the model that looks at ``order`` tokens: ``unigram`` for 0, ``bigram`` for 1, …"""
    return _NAMES[order] if order < len(_NAMES) else f"{order + 1}gram"


def in_context_ngram(tokens: Tensor, order: int, num_states: int, prior: float = 1.0) -> Tensor:
    """Log-probabilities of the next token from counts in the sequence so far.

    After ``x_1 … x_t`` the token ``v`` has a probability in proportion to ``c_v + prior``, where
    ``c_v`` counts how often the last ``order`` tokens were followed by ``v`` before. With the rows
    of a chain drawn from ``Dirichlet(prior)`` this is the Bayes predictor, given the first
    ``order`` tokens; with ``prior=1`` it is the add-one rule. With fewer than ``order`` tokens it
    is uniform.

    Args:
        tokens: int64 ``(batch, length)`` in ``0 … num_states - 1``.
        order: tokens that the next one depends on; 0 counts all tokens.
        num_states: tokens there are.
        prior: pseudo-count, > 0.

    Returns:
        ``(batch, length, num_states)``.

    Raises:
        ValueError: ``order`` below 0, or a prior that is not positive.
    """
    if order < 0:
        raise ValueError(f"order={order}: expected 0 or more")
    if not prior > 0:
        raise ValueError(f"prior={prior}: expected more than 0")
    seen = torch.nn.functional.one_hot(tokens, num_states).float()
    if order == 0:
        counts = seen.cumsum(dim=1)
    else:
        counts = torch.zeros_like(seen)
        if tokens.shape[1] >= order:
            context = context_numbers(tokens, order, num_states)
            same = (context[:, :, None] == context[:, None, :]).tril(-1).float()
            followed_by = torch.nn.functional.pad(seen[:, order:], (0, 0, 0, 1))
            counts[:, order - 1 :] = same @ followed_by
    smoothed = counts + prior
    return (smoothed / smoothed.sum(dim=-1, keepdim=True)).log()


def context_numbers(tokens: Tensor, order: int, num_states: int) -> Tensor:
    """A number for each ``order`` tokens in a row, ``(batch, length - order + 1)``."""
    weights = num_states ** torch.arange(order - 1, -1, -1, device=tokens.device)
    return (tokens.unfold(1, order, 1) * weights).sum(dim=-1)
