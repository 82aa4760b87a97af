"""What counting in the context predicts: the baselines of in-context learning of Markov chains."""

import torch
from torch import Tensor

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
