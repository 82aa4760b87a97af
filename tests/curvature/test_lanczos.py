import pytest
import torch

from lightning_plugins.curvature import largest_eigenvalues


def symmetric(spectrum, seed=0):
    size = len(spectrum)
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    return basis @ torch.diag(torch.tensor(spectrum, dtype=torch.float64)) @ basis.T


def test_largest_values_are_found_among_negative_ones():
    spectrum = [*torch.linspace(-9, 1, 197).tolist(), 2.0, 3.0, 5.0]
    matrix = symmetric(spectrum)
    found = largest_eigenvalues(
        matrix.mv, 200, 3, tolerance=1e-9, max_products=200, dtype=torch.float64
    )
    torch.testing.assert_close(found.values, torch.tensor([5.0, 3.0, 2.0]).double())


def test_the_residual_bounds_the_error():
    matrix = symmetric(torch.linspace(0, 1, 100).square().tolist())
    for budget in (5, 10, 20):
        found = largest_eigenvalues(
            matrix.mv, 100, tolerance=1e-12, max_products=budget, dtype=torch.float64
        )
        nearest = (torch.linalg.eigvalsh(matrix) - found.values).abs().min()
        assert found.products == budget
        assert nearest <= found.residuals[0] + 1e-12


def test_it_stops_when_the_space_is_exhausted():
    found = largest_eigenvalues(symmetric([4.0] + [0.0] * 49).mv, 50, dtype=torch.float64)
    assert found.products <= 3
    torch.testing.assert_close(found.values, torch.tensor([4.0]).double())


def test_float32_products_give_the_value_to_the_requested_tolerance():
    matrix = symmetric([*torch.linspace(0, 1, 300).tolist(), 3.0]).float()
    found = largest_eigenvalues(matrix.mv, 301, tolerance=1e-4)
    assert abs(found.values.item() - 3.0) < 3e-4


def test_the_global_generator_is_not_used():
    before = torch.get_rng_state()
    largest_eigenvalues(symmetric([1.0, 2.0, 3.0]).mv, 3, dtype=torch.float64)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"count": 4}, "count=4"), ({"tolerance": 0}, "tolerance=0"), ({"max_products": 0}, "max_p")],
)
def test_bad_arguments_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        largest_eigenvalues(torch.eye(3).mv, 3, **arguments)


def test_a_non_finite_operator_is_refused():
    with pytest.raises(ValueError, match="non-finite"):
        largest_eigenvalues(lambda v: v / 0, 3)
