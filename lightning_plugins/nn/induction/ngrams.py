"""Predictions of induction heads and of n-gram counts from the context."""

from collections.abc import Callable

import torch
from torch import Tensor

Similarity = Callable[[Tensor, Tensor], Tensor]
"""Maps a query ``(batch, features)`` and keys ``(batch, keys, features)`` to ``(batch, keys)``."""


def in_context_n_gram(tokens: Tensor, similarity: Similarity, n: int = 2) -> Tensor:
    """Compute ``IH_n``: the average of earlier tokens, weighted by the similarity of their context.

    With the patch ``P_s = (x_{s-n+1}, …, x_{s-1})`` before token ``s`` (counted from 1) the value
    is ``Σ_{s=n}^{L-1} softmax_s(g(P_{L+1}, P_s)) x_s``. A bilinear ``g`` gives the paper's
    ``IH_n``, any other ``g`` its ``GIH_n`` (Wang et al., arXiv 2410.11474).

    Args:
        tokens: Sequences ``(batch, length, dim)``.
        similarity: ``g`` of patches that are flattened in temporal order, ``(n - 1)·dim`` features.
        n: Number of matched tokens plus the one that is read; at least 2.

    Returns:
        Averages ``(batch, dim)``.

    Raises:
        ValueError: ``n`` is below 2, or the sequences are too short to contain an earlier patch and
            the token after it.
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
    """Return the similarity ``qᵀ W k`` for ``weight`` of shape ``(features, features)``."""
    return lambda query, keys: (keys @ (query @ weight)[..., None])[..., 0]


def four_gram(tokens: Tensor) -> Tensor:
    """Return ``x_{L-2}`` of tokens ``(batch, length, …)``, a fixed position.

    The paper calls this a 4-gram: ``x_{L-2}`` is the third token before the next one.
    """
    return tokens[:, -3]


_NAMES = ("unigram", "bigram", "trigram")


def ngram_name(order: int) -> str:
    """Name the model that depends on ``order`` tokens: ``unigram`` for 0, ``bigram`` for 1, …"""
    return _NAMES[order] if order < len(_NAMES) else f"{order + 1}gram"


def in_context_ngram(tokens: Tensor, order: int, num_states: int, prior: float = 1.0) -> Tensor:
    """Compute log-probabilities of the next token from counts in the sequence so far.

    After ``x_1 … x_t`` the probability of token ``v`` is proportional to ``c_v + prior``, where
    ``c_v`` is the number of times that ``v`` followed the last ``order`` tokens. If the rows of a
    chain are drawn from ``Dirichlet(prior)``, this is the Bayes predictor given the first ``order``
    tokens; ``prior=1`` is add-one smoothing. The prediction is uniform before ``order`` tokens were
    seen.

    Args:
        tokens: Sequences, int64 ``(batch, length)`` in ``0 … num_states - 1``.
        order: Number of previous tokens that the next token depends on; 0 counts all tokens.
        num_states: Number of different tokens.
        prior: Pseudo-count, > 0.

    Returns:
        Log-probabilities ``(batch, length, num_states)``.

    Raises:
        ValueError: ``order`` is below 0, or ``prior`` is not positive.
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
    """Number all ``order`` consecutive tokens, ``(batch, length - order + 1)``."""
    weights = num_states ** torch.arange(order - 1, -1, -1, device=tokens.device)
    return (tokens.unfold(1, order, 1) * weights).sum(dim=-1)
