import math

import pytest
import torch

from lightning_plugins.curvature import measure_sharpness

CURVATURES = torch.tensor([4.0, 2.0, 1.0])


def quadratic(weights, scale=1.0):
    return lambda rows: scale * 0.5 * (CURVATURES * weights**2).sum() * rows.mean()


BATCHES = [(torch.ones(3),), (torch.ones(1),)]


def test_on_a_quadratic_loss_all_measures_are_the_closed_form():
    weights = torch.tensor([1.0, 0.0, 0.0], requires_grad=True)
    found = measure_sharpness(
        quadratic(weights), [weights], BATCHES, top_k=3, trace_probes=30, rho=0.1
    )
    assert found["lambda_max"] == pytest.approx(4, rel=1e-3)
    assert found["lambda_2"] == pytest.approx(2, rel=1e-3)
    assert found["lambda_3"] == pytest.approx(1, rel=1e-3)
    assert found["trace"] == pytest.approx(7, rel=1e-4)
    # The gradient is along the first axis: 4 (1.1^2 - 1) / 2.
    assert found["sam_gap"] == pytest.approx(0.42, rel=1e-4)
    assert list(found) == [
        *("lambda_max", "lambda_2", "lambda_3"),
        *("sam_gap", "trace", "trace_standard_error"),
    ]


def test_what_is_not_asked_for_is_left_out():
    weights = torch.ones(3, requires_grad=True)
    found = measure_sharpness(quadratic(weights), [weights], BATCHES, rho=0)
    assert list(found) == ["lambda_max"]


def test_fewer_different_eigenvalues_than_asked_for_are_not_a_number():
    weights = torch.ones(3, requires_grad=True)
    found = measure_sharpness(
        lambda rows: (weights**2).sum() * rows.mean(), [weights], BATCHES, top_k=2
    )
    assert found["lambda_max"] == pytest.approx(2)
    assert math.isnan(found["lambda_2"])


def test_where_the_curvature_is_not_finite_every_measure_is_not_a_number():
    weights = torch.ones(3, requires_grad=True)
    found = measure_sharpness(
        quadratic(weights, math.inf), [weights], BATCHES, top_k=2, trace_probes=3
    )
    assert len(found) == 5
    assert all(map(math.isnan, found.values()))
