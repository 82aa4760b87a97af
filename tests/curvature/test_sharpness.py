import math

import pytest
import torch

from lightning_plugins.curvature import measure_sharpness, sam_gap

CURVATURES = torch.tensor([4.0, 2.0, 1.0])


def quadratic(weights, scale=1.0):
    return lambda rows: scale * 0.5 * (CURVATURES * weights**2).sum() * rows.mean()


BATCHES = [(torch.ones(3),), (torch.ones(1),)]


def test_all_measures_of_a_quadratic_loss_equal_the_closed_form():
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


def test_measures_that_are_not_requested_are_omitted():
    weights = torch.ones(3, requires_grad=True)
    found = measure_sharpness(quadratic(weights), [weights], BATCHES, rho=0)
    assert list(found) == ["lambda_max"]


def test_missing_eigenvalues_are_nan():
    weights = torch.ones(3, requires_grad=True)
    found = measure_sharpness(
        lambda rows: (weights**2).sum() * rows.mean(), [weights], BATCHES, top_k=2
    )
    assert found["lambda_max"] == pytest.approx(2)
    assert math.isnan(found["lambda_2"])


def test_all_measures_are_nan_if_the_curvature_is_not_finite():
    weights = torch.ones(3, requires_grad=True)
    found = measure_sharpness(
        quadratic(weights, math.inf), [weights], BATCHES, top_k=2, trace_probes=3
    )
    assert len(found) == 5
    assert all(map(math.isnan, found.values()))


def test_sam_gap_of_a_quadratic_loss_equals_the_closed_form():
    matrix = torch.diag(torch.tensor([3.0, 1.0, 0.5])).double()
    weight = torch.tensor([1.0, -2.0, 3.0]).double().requires_grad_()
    before = weight.detach().clone()
    # Two batches of 1 and 3 samples whose weighted mean is w^T A w / 2.
    batches = [(torch.full((1,), 4.0).double(),), (torch.zeros(3).double(),)]
    found = sam_gap(lambda x: x.mean() * 0.5 * weight @ matrix @ weight, [weight], batches, rho=0.1)
    gradient = matrix @ before
    length = gradient.norm()
    expected = 0.1 * length + 0.5 * 0.01 * gradient @ matrix @ gradient / length**2
    assert found == pytest.approx(expected.item(), rel=1e-9)
    assert torch.equal(weight.detach(), before)
    assert weight.grad is None


def test_sam_gap_restores_the_weights_after_an_error():
    weight = torch.ones(2, requires_grad=True)

    def fails_when_moved(x):
        if not torch.equal(weight.detach(), torch.ones(2)):
            raise RuntimeError("on purpose")
        return (weight * x).sum()

    with pytest.raises(RuntimeError, match="on purpose"):
        sam_gap(fails_when_moved, [weight], [(torch.ones(1, 2),)])
    assert torch.equal(weight.detach(), torch.ones(2))


def test_sam_gap_names_a_wrong_argument():
    with pytest.raises(ValueError, match="rho=0"):
        sam_gap(torch.sum, [], [(torch.zeros(1),)], rho=0)
    with pytest.raises(ValueError, match="batches is empty"):
        sam_gap(torch.sum, [], [])
