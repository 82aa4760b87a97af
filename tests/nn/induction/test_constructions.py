import math

import pytest
import torch

from lightning_plugins.nn.induction import (
    ConstructedInductionHead,
    SeparatedSimilarity,
    bilinear,
    in_context_n_gram,
)
from lightning_plugins.nn.induction.constructions import interpolating_network

LENGTHS = (8, 20, 60)


def tokens(dim, length=60):
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.rand(100, length, dim, generator=generator, dtype=torch.float64) - 1


def similarity(n, dim=2):
    return bilinear(0.5 * torch.eye((n - 1) * dim, dtype=torch.float64))


def error(head, n, length, dim=2):
    x = tokens(dim)[:, :length]
    return (head(x) - in_context_n_gram(x, similarity(n, dim), n)).abs().max().item()


@pytest.mark.parametrize("p", [2.0, 4.0, 8.0, 16.0])
def test_one_head_provides_the_previous_token_up_to_e_to_minus_p_at_every_length(p):
    head = ConstructedInductionHead(2, 2, similarity(2), heads=1, beta=p)
    bound = 2 * math.exp(-p) / (1 - math.exp(-p))
    for length in LENGTHS:
        x = tokens(2)[:, :length]
        handed_on = head.shifted(x)[:, 1:, 0]
        assert (handed_on - x[:, :-1]).abs().max() < bound
        assert error(head, 2, length) < bound


def test_the_error_of_one_head_decreases_as_e_to_minus_p():
    errors = [error(ConstructedInductionHead(2, 2, similarity(2), 1, p), 2, 20) for p in (4.0, 8.0)]
    assert math.log(errors[0] / errors[1]) == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("n", [3, 4])
def test_longer_matches_become_exact_with_more_heads(n):
    for length in LENGTHS:
        errors = [
            error(ConstructedInductionHead(2, n, similarity(n), heads, beta=0.3), n, length)
            for heads in (4, 6, 8, 12)
        ]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 1e-6


def test_short_prefixes_have_the_error_that_the_proof_omits():
    """The first layer assumes the normalizer of a full past, which short prefixes do not have."""
    x = tokens(1, 60)
    gaps = {}
    for exact in (False, True):
        head = ConstructedInductionHead(
            1, 4, similarity(4, 1), heads=12, beta=0.3, exact_normalizer=exact
        )
        off = (head.shifted(x)[:, 3:, 0] - x[:, 2:-1]).abs().amax(dim=(0, 2))
        gaps[exact] = (off[:3].max().item(), off[-3:].max().item())
    assert gaps[False][0] > 100 * gaps[True][0]  # at places 4 to 6
    assert gaps[False][1] < 10 * gaps[True][1]  # at places 58 to 60


def test_an_exact_normalizer_does_not_change_late_positions():
    x = tokens(2)
    one, other = (
        ConstructedInductionHead(2, 3, similarity(3), 6, beta=1.0, exact_normalizer=exact)(x)
        for exact in (False, True)
    )
    torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def general(u, v):
    """A similarity that is not bilinear."""
    return 2 * torch.exp(-2 * (u - v) ** 2)


def test_a_feed_forward_network_approximates_a_general_similarity():
    x = tokens(1, 40)
    expected = in_context_n_gram(x, lambda q, k: general(q[:, None], k)[..., 0])
    errors = {
        (rank, knots): (
            ConstructedInductionHead(
                1, 2, SeparatedSimilarity(general, rank, knots, reach=1.0), 1, beta=30.0
            )(x)
            - expected
        )
        .abs()
        .max()
        .item()
        for rank, knots in ((1, 64), (3, 64), (6, 64), (8, 16), (8, 64))
    }
    assert errors[1, 64] > 3 * errors[3, 64] > 9 * errors[6, 64]  # the rank's part
    assert errors[8, 16] / errors[8, 64] == pytest.approx((63 / 15) ** 2, rel=0.5)  # the knots'
    assert errors[8, 64] < 5e-4


def test_the_interpolating_network_matches_numpy_interpolation():
    knots = torch.tensor([-1.0, 0.5, 1.0, 3.0], dtype=torch.float64)
    values = torch.tensor([[1.0], [-2.0], [0.0], [5.0]], dtype=torch.float64)
    places = torch.linspace(-2, 4, 50, dtype=torch.float64)
    import numpy as np

    expected = np.interp(places, knots, values[:, 0])
    found = interpolating_network(knots, values)(places[:, None])[:, 0]
    torch.testing.assert_close(found, torch.from_numpy(expected))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"dim": 0}, "dim=0"),
        ({"n": 1}, "n=1"),
        ({"n": 4, "heads": 2}, "heads=2: expected at least n - 1 = 3"),
        ({"beta": 0.0}, r"beta=0\.0"),
    ],
)
def test_errors_name_the_invalid_argument(arguments, named):
    with pytest.raises(ValueError, match=named):
        ConstructedInductionHead(**{"dim": 2, "n": 2, "similarity": general} | arguments)


def test_too_short_sequences_and_too_many_products_are_refused():
    with pytest.raises(ValueError, match="length=3: expected at least n"):
        ConstructedInductionHead(2, 3, similarity(3), 4)(tokens(2, 3))
    with pytest.raises(ValueError, match="rank=9"):
        SeparatedSimilarity(general, 9, 8, 1.0)
