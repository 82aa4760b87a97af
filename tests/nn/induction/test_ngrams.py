"""In-context n-grams and induction heads against naive loops."""

import math

import pytest
import torch

from lightning_plugins.nn.induction import bilinear, four_gram, in_context_n_gram
from lightning_plugins.nn.induction.ngrams import in_context_ngram, ngram_name


def by_counting(sequence, order, num_states, prior):
    """Count explicitly, one token at a time."""
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
def test_in_context_ngrams_match_explicit_counting(order, prior):
    tokens = torch.randint(3, (4, 20), generator=torch.Generator().manual_seed(order))
    expected = [by_counting(row, order, 3, prior) for row in tokens.tolist()]
    found = in_context_ngram(tokens, order, 3, prior).exp()
    torch.testing.assert_close(found, torch.tensor(expected))


def test_sequences_shorter_than_the_order_are_uniform():
    found = in_context_ngram(torch.zeros(2, 2, dtype=torch.int64), 3, 4)
    torch.testing.assert_close(found, torch.full((2, 2, 4), -math.log(4)))


def test_ngrams_have_their_usual_names():
    assert [ngram_name(order) for order in range(4)] == ["unigram", "bigram", "trigram", "4gram"]


def test_errors_name_the_invalid_argument():
    tokens = torch.zeros(1, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match="order=-1"):
        in_context_ngram(tokens, -1, 2)
    with pytest.raises(ValueError, match="prior=0"):
        in_context_ngram(tokens, 1, 2, 0)


def by_the_formula(tokens, weight, n):
    """``Σ_s softmax_s(P_{L+1}ᵀ W P_s) x_s`` with tokens counted from 1, one sequence at a time."""
    results = []
    for sequence in tokens:
        x = {place + 1: value for place, value in enumerate(sequence)}
        length = len(sequence)

        def patch(s, x=x):
            return torch.cat([x[place] for place in range(s - n + 1, s)])

        sources = range(n, length)
        scores = [float(patch(length + 1) @ weight @ patch(s)) for s in sources]
        total = sum(math.exp(score) for score in scores)
        pairs = zip(sources, scores, strict=True)
        results.append(sum(math.exp(score) / total * x[s] for s, score in pairs))
    return torch.stack(results)


@pytest.mark.parametrize(("n", "dim", "length"), [(2, 1, 4), (2, 3, 9), (3, 1, 5), (4, 2, 5)])
def test_the_induction_head_matches_the_formula_of_the_paper(n, dim, length):
    generator = torch.Generator().manual_seed(n)
    tokens = torch.randn(3, length, dim, generator=generator, dtype=torch.float64)
    weight = torch.randn((n - 1) * dim, (n - 1) * dim, generator=generator, dtype=torch.float64)
    found = in_context_n_gram(tokens, bilinear(weight), n)
    torch.testing.assert_close(found, by_the_formula(tokens, weight, n))


def test_a_sharp_match_reads_the_token_after_the_copy():
    tokens = torch.eye(5)[torch.tensor([[0, 1, 2, 3, 4, 1]])]
    found = in_context_n_gram(tokens, bilinear(100 * torch.eye(5)))
    torch.testing.assert_close(found, torch.eye(5)[[2]])


def test_the_four_gram_is_the_third_token_from_the_end():
    assert four_gram(torch.arange(6.0)[None]).item() == 3


def test_sequences_without_an_earlier_patch_are_refused():
    tokens = torch.zeros(1, 3, 1)
    with pytest.raises(ValueError, match=r"length=3: expected at least n \+ 1 = 4"):
        in_context_n_gram(tokens, bilinear(torch.eye(2)), 3)
    with pytest.raises(ValueError, match="n=1"):
        in_context_n_gram(tokens, bilinear(torch.eye(1)), 1)
