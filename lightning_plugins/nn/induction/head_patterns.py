"""What a head of a known kind would attend to, and how much of its attention goes there."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Rows = Literal["matching", "all"]


def previous_token_pattern(tokens: Tensor) -> Tensor:
    """``(batch, length, length)``, true where the column is the token before the row's."""
    length = tokens.shape[-1]
    one_before = torch.ones(length - 1, dtype=torch.bool, device=tokens.device).diag(-1)
    return one_before.expand(*tokens.shape, length)


def duplicate_token_pattern(tokens: Tensor) -> Tensor:
    """``(batch, length, length)``, true where the column is an earlier copy of the row's token."""
    return (tokens[..., :, None] == tokens[..., None, :]).tril(-1)


def induction_pattern(tokens: Tensor) -> Tensor:
    """``(batch, length, length)``, true where the column follows an earlier copy of the token."""
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
    """Share of each head's attention that lies on the pattern, averaged over the batch.

    Args:
        attention: ``(batch, heads, length, length)``, rows sum to 1.
        pattern: ``(batch, length, length)``, of zeros and ones.
        rows: ``matching`` counts the attention of those tokens that have a place on the pattern,
            so that a perfect head has 1; ``all`` counts that of every token, as
            ``detect_head(error_measure="mul")`` of TransformerLens does.

    Returns:
        ``(heads,)``, between 0 and 1; NaN where no token has a place on the pattern.
    """
    on_pattern = (attention * pattern[:, None]).sum(dim=(-1, -2))
    counted = attention.sum(dim=-1)
    if rows == "matching":
        counted = counted * pattern.any(dim=-1)[:, None]
    return (on_pattern / counted.sum(dim=-1)).nanmean(dim=0)


def copying_score(value: Tensor, output: Tensor, embed: Tensor, unembed: Tensor) -> Tensor:
    """``Re Σλ / Σ|λ|`` of the eigenvalues of ``W_E W_V W_O W_U``: 1 if a head copies.

    After Elhage et al., *A Mathematical Framework for Transformer Circuits*, 2021. Only the
    weights count; gains of norms between them are left out. The nonzero eigenvalues are found in
    the head's own dimension, ``W_O W_U W_E W_V``.

    Args:
        value: ``W_V`` ``(heads, dim, head_dim)``.
        output: ``W_O`` ``(heads, head_dim, dim)``.
        embed: ``W_E`` ``(vocab_size, dim)``.
        unembed: ``W_U`` ``(dim, vocab_size)``.

    Returns:
        ``(heads,)``, from -1 to 1; NaN for a head of zeros.
    """
    through_vocabulary = unembed.float() @ embed.float()
    eigenvalues = torch.linalg.eigvals(output.float() @ through_vocabulary @ value.float())
    return eigenvalues.real.sum(dim=-1) / eigenvalues.abs().sum(dim=-1)


def repeated_probe(num_sequences: int, period: int, vocab_size: int, seed: int) -> Tensor:
    """Random tokens followed by the same tokens again, ``(num_sequences, 2 * period)``.

    Within a copy no token comes twice where the vocabulary allows it, so that an earlier copy of
    each token of the second half is the one of the first half.
    """
    generator = torch.Generator().manual_seed(seed)
    if period <= vocab_size:
        scores = torch.rand(num_sequences, vocab_size, generator=generator)
        first = scores.topk(period, dim=-1).indices
    else:
        first = torch.randint(vocab_size, (num_sequences, period), generator=generator)
    return torch.cat([first, first], dim=-1)
