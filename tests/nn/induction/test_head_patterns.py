import math

import pytest
import torch

from lightning_plugins.nn.induction.head_patterns import (
    attention_share,
    copying_score,
    duplicate_token_pattern,
    induction_pattern,
    previous_token_pattern,
    repeated_probe,
)

TOKENS = torch.tensor([[3, 1, 3, 3, 2]])


def places(pattern):
    """Return (row, column) of the true entries in the first sequence."""
    return {tuple(place) for place in pattern[0].nonzero().tolist()}


def test_patterns_match_their_names():
    assert places(previous_token_pattern(TOKENS)) == {(1, 0), (2, 1), (3, 2), (4, 3)}
    assert places(duplicate_token_pattern(TOKENS)) == {(2, 0), (3, 0), (3, 2)}
    assert places(induction_pattern(TOKENS)) == {(2, 1), (3, 1), (3, 3)}


def test_the_induction_pattern_of_a_repeated_probe_is_one_stripe():
    tokens = repeated_probe(5, period=6, vocab_size=9, seed=0)
    assert torch.equal(tokens[:, :6], tokens[:, 6:])
    assert places(induction_pattern(tokens)) == {(row, row - 5) for row in range(6, 12)}
    assert torch.equal(tokens, repeated_probe(5, 6, 9, seed=0))
    assert not torch.equal(tokens, repeated_probe(5, 6, 9, seed=1))


def test_a_small_vocabulary_repeats_tokens_within_a_period():
    tokens = repeated_probe(5, period=6, vocab_size=3, seed=0)
    assert tokens.max() == 2
    assert tokens.shape == (5, 12)


def test_attention_shares_count_the_selected_rows():
    attention = torch.zeros(1, 2, 5, 5)
    attention[0, 0] = induction_pattern(TOKENS)[0].float()
    attention[0, 0, 3, 1] = 0.25
    attention[0, 0, 3, 3] = 0.75
    for row in (0, 1, 4):
        attention[0, 0, row, 0] = 1.0
    attention[0, 1] = torch.eye(5)
    pattern = induction_pattern(TOKENS)
    assert attention_share(attention, pattern).tolist() == [1.0, 0.5]
    assert attention_share(attention, pattern, "all").tolist() == pytest.approx([2 / 5, 1 / 5])


def test_the_attention_share_of_an_empty_pattern_is_nan():
    nothing_repeats = torch.arange(5)[None]
    share = attention_share(torch.eye(5)[None, None], induction_pattern(nothing_repeats))
    assert math.isnan(share.item())


def test_the_copying_score_uses_the_eigenvalues_of_the_whole_circuit():
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 6, 3), (2, 3, 6), (9, 6), (6, 9))
    value, output, embed, unembed = (torch.randn(s, generator=generator) for s in shapes)
    eigenvalues = torch.linalg.eigvals((embed @ value @ output @ unembed).double())
    expected = eigenvalues.real.sum(-1) / eigenvalues.abs().sum(-1)
    found = copying_score(value, output, embed, unembed).double()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
