"""Decoding with a trie writes only titles of the catalogue."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_plugins.litmodels.recommendation.language.title_trie import TitleTrie, TrieDecoding

END, VOCABULARY = 9, 10
SEQUENCES = [[1, 0], [1, 2, 0], [3, 1, 0], [1, 2, 0], [1, 2, 2, 0], [4, 0]]  # 2 and 4 are equal


def decoded(trie, allowed, length, pick):
    """Return tokens and paths if ``pick`` chooses the next tokens from their scores."""
    rows = len(allowed)
    decoding = TrieDecoding(trie, allowed, length, END)
    tokens = torch.full((rows, 1), 7)
    for _ in range(length * trie.longest + 1):
        scores = decoding(tokens, torch.zeros(rows, VOCABULARY))
        tokens = torch.cat([tokens, pick(scores)[:, None]], dim=1)
    return tokens[:, 1:].tolist(), decoding.paths


@settings(max_examples=30, deadline=None)
@given(data=st.data(), seed=st.integers(0, 999))
def test_any_choice_of_tokens_spells_each_allowed_item_at_most_once(data, seed):
    count = len(SEQUENCES)
    allowed = torch.tensor(
        [[False, *data.draw(st.lists(st.booleans(), min_size=count, max_size=count))]] * 2
    )
    length = data.draw(st.integers(1, 7))
    generator = torch.Generator().manual_seed(seed)
    tokens, paths = decoded(
        TitleTrie(SEQUENCES),
        allowed,
        length,
        lambda scores: scores.exp().multinomial(1, generator=generator)[:, 0],
    )
    for row, path in zip(tokens, paths, strict=True):
        assert len(path) == len(set(path)) == min(length, int(allowed[0].sum()))
        assert all(allowed[0, item] for item in path)
        spelled = [token for item in path for token in SEQUENCES[item - 1]]
        assert row == spelled + [END] * (len(row) - len(spelled))


def test_scores_of_allowed_tokens_are_unchanged():
    decoding = TrieDecoding(TitleTrie(SEQUENCES), torch.tensor([[False] + [True] * 6]), 1, END)
    scores = torch.arange(VOCABULARY).float()[None]
    masked = decoding(torch.tensor([[5]]), scores)
    assert masked.isfinite().nonzero()[:, 1].tolist() == [1, 3, 4]
    assert masked[0, [1, 3, 4]].tolist() == [1, 3, 4]


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([[1, 2], []], "item 2 has no tokens"),
        ([[1, 2], [1]], "the tokens of item 2 are a prefix of another item's"),
    ],
)
def test_empty_titles_and_prefixes_of_titles_raise_an_error(sequences, message):
    with pytest.raises(ValueError, match=message):
        TitleTrie(sequences)
