import math

import pytest
import torch

from lightning_plugins.nn.induction import bilinear, four_gram, in_context_n_gram


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
def test_it_is_the_formula_of_the_paper(n, dim, length):
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


def test_what_has_no_earlier_patch_is_refused():
    tokens = torch.zeros(1, 3, 1)
    with pytest.raises(ValueError, match=r"length=3: expected at least n \+ 1 = 4"):
        in_context_n_gram(tokens, bilinear(torch.eye(2)), 3)
    with pytest.raises(ValueError, match="n=1"):
        in_context_n_gram(tokens, bilinear(torch.eye(1)), 1)
