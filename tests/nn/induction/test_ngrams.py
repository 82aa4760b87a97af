import math

import pytest
import torch

from lightning_plugins.nn.induction.ngrams import in_context_ngram, ngram_name


def by_counting(sequence, order, num_states, prior):
    """Probabilities after each token, one token at a time."""
    rows = []
    for end in range(1, len(sequence) + 1):
        past = sequence[:end]
        counts = [prior] * num_states
        if len(past) >= order:
            context = past[len(past) - order :]
            for place in range(order, len(past)):
                if past[place - order : place] == context:
                    counts[past[place]] += 1
        total = sum(counts)
        rows.append([count / total for count in counts])
    return rows


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize("prior", [1.0, 0.5])
def test_it_is_counting(order, prior):
    tokens = torch.randint(3, (4, 20), generator=torch.Generator().manual_seed(order))
    expected = [by_counting(row, order, 3, prior) for row in tokens.tolist()]
    found = in_context_ngram(tokens, order, 3, prior).exp()
    torch.testing.assert_close(found, torch.tensor(expected))


def test_sequences_shorter_than_the_order_are_uniform():
    found = in_context_ngram(torch.zeros(2, 2, dtype=torch.int64), 3, 4)
    torch.testing.assert_close(found, torch.full((2, 2, 4), -math.log(4)))


def test_names_are_the_fields():
    assert [ngram_name(order) for order in range(4)] == ["unigram", "bigram", "trigram", "4gram"]


def test_bad_arguments_are_named():
    tokens = torch.zeros(1, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match="order=-1"):
        in_context_ngram(tokens, -1, 2)
    with pytest.raises(ValueError, match="prior=0"):
        in_context_ngram(tokens, 1, 2, 0)
