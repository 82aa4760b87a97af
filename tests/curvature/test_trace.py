import math

import pytest
import torch

from lightning_plugins.curvature import hutch_plus_plus_trace, hutchinson_trace


def symmetric(spectrum, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = len(spectrum)
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    return basis @ torch.diag(torch.tensor(spectrum, dtype=torch.float64)) @ basis.T


DECAYING = [2.0**-k for k in range(60)]


@pytest.mark.parametrize("estimate", [hutchinson_trace, hutch_plus_plus_trace])
def test_the_error_agrees_with_the_standard_error(estimate):
    matrix = symmetric(torch.linspace(-1, 3, 60).tolist())
    exact = matrix.trace().item()
    scores = []
    for seed in range(60):
        found = estimate(matrix.mv, 60, 24, seed=seed, dtype=torch.float64)
        assert found.products == 24
        scores.append((found.value - exact) / found.standard_error)
    scores = torch.tensor(scores)
    assert abs(scores.mean()) < 3 / math.sqrt(60)
    assert 0.7 < scores.std() < 1.6


def test_one_probe_is_exact_for_a_diagonal_matrix():
    found = hutchinson_trace(torch.diag(torch.arange(1.0, 6.0)).mv, 5, 1)
    assert found.value == pytest.approx(15)
    assert math.isnan(found.standard_error)


def test_hutch_plus_plus_is_more_accurate_if_the_spectrum_decays():
    matrix = symmetric(DECAYING)
    exact = matrix.trace().item()

    def error(estimate):
        return sum(
            abs(estimate(matrix.mv, 60, 24, seed=seed, dtype=torch.float64).value - exact)
            for seed in range(20)
        )

    assert error(hutch_plus_plus_trace) < 0.1 * error(hutchinson_trace)


def test_a_matrix_of_low_rank_has_its_exact_trace():
    matrix = symmetric([5.0, 3.0] + [0.0] * 58)
    found = hutch_plus_plus_trace(matrix.mv, 60, 9, dtype=torch.float64)
    assert found.value == pytest.approx(8.0, rel=1e-6)


def test_the_seed_determines_the_estimate_and_the_global_generator_is_not_used():
    before = torch.get_rng_state()
    matrix = symmetric(DECAYING)
    one, same, other = (
        hutchinson_trace(matrix.mv, 60, 4, seed=seed, dtype=torch.float64) for seed in (1, 1, 2)
    )
    assert one == same != other
    assert torch.equal(before, torch.get_rng_state())


def test_too_few_probes_are_refused():
    with pytest.raises(ValueError, match="probes=0"):
        hutchinson_trace(torch.eye(3).mv, 3, 0)
    with pytest.raises(ValueError, match="probes=2"):
        hutch_plus_plus_trace(torch.eye(3).mv, 3, 2)
