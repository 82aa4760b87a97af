"""Attention patterns of known kinds of heads, and scores that detect them."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Rows = Literal["matching", "all"]


def previous_token_pattern(tokens: Tensor) -> Tensor:
    """Return ``(batch, length, length)``, true where the column is the token before the row's."""
    length = tokens.shape[-1]
    one_before = torch.ones(length - 1, dtype=torch.bool, device=tokens.device).diag(-1)
    return one_before.expand(*tokens.shape, length)


def duplicate_token_pattern(tokens: Tensor) -> Tensor:
    """Return ``(batch, length, length)``, true at earlier copies of the row's token."""
    return (tokens[..., :, None] == tokens[..., None, :]).tril(-1)


def induction_pattern(tokens: Tensor) -> Tensor:
    """Return ``(batch, length, length)``, true after earlier copies of the row's token."""
    after_copy = torch.zeros(*tokens.shape, tokens.shape[-1], dtype=torch.bool)
    after_copy = after_copy.to(tokens.device)
    after_copy[..., 1:] = duplicate_token_pattern(tokens)[..., :-1]
    return after_copy


PATTERNS: dict[str, Callable[[Tensor], Tensor]] = {
    "previous_token": previous_token_pattern,
    "duplicate_token": duplicate_token_pattern,
    "induction": induction_pattern,
}


def attention_share(attention: Tensor, pattern: Tensor, rows: Rows = "matching") -> Tensor:
    """Compute the fraction of each head's attention on the pattern, averaged over the batch.

    Attention to a sink, which is not a token, counts as attention outside of the pattern.

    Args:
        attention: Attention ``(batch, heads, length, length)``; rows sum to 1, or to less if the
            head also attends to a sink (GPT-OSS).
        pattern: Zeros and ones ``(batch, length, length)``.
        rows: ``matching`` counts only tokens whose pattern row is not empty, so that a perfect head
            has 1; ``all`` counts every token, like ``detect_head(error_measure="mul")`` of
            TransformerLens.

    Returns:
        Fractions ``(heads,)`` between 0 and 1; NaN if the pattern is empty.
    """
    on_pattern = (attention * pattern[:, None]).sum(dim=(-1, -2))
    counted = pattern.any(dim=-1) if rows == "matching" else torch.ones_like(pattern[..., 0])
    return (on_pattern / counted.sum(dim=-1)[:, None]).nanmean(dim=0)


def copying_score(value: Tensor, output: Tensor, embed: Tensor, unembed: Tensor) -> Tensor:
    """Compute ``Re Σλ / Σ|λ|`` of the eigenvalues of ``W_E W_V W_O W_U``: 1 if a head copies.

    After Elhage et al., *A Mathematical Framework for Transformer Circuits*, 2021. The score uses
    the weight matrices only and ignores the gains of norms between them. The nonzero eigenvalues
    are computed in the smaller dimension of the head, from ``W_O W_U W_E W_V``.

    Args:
        value: Value weights ``W_V`` ``(heads, dim, head_dim)``.
        output: Output weights ``W_O`` ``(heads, head_dim, dim)``.
        embed: Embedding ``W_E`` ``(vocab_size, dim)``.
        unembed: Unembedding ``W_U`` ``(dim, vocab_size)``.

    Returns:
        Scores ``(heads,)`` from -1 to 1; NaN for a head of zeros.
    """
    through_vocabulary = unembed.float() @ embed.float()
    eigenvalues = torch.linalg.eigvals(output.float() @ through_vocabulary @ value.float())
    return eigenvalues.real.sum(dim=-1) / eigenvalues.abs().sum(dim=-1)


def repeated_probe(num_sequences: int, period: int, vocab_size: int, seed: int) -> Tensor:
    """Return random tokens that are repeated once, ``(num_sequences, 2 * period)``.

    No token occurs twice within a half if the vocabulary is large enough. Each token of the second
    half then has exactly one earlier copy, in the first half.
    """
    generator = torch.Generator().manual_seed(seed)
    if period <= vocab_size:
        scores = torch.rand(num_sequences, vocab_size, generator=generator)
        first = scores.topk(period, dim=-1).indices
    else:
        first = torch.randint(vocab_size, (num_sequences, period), generator=generator)
    return torch.cat([first, first], dim=-1)
