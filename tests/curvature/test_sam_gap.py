import pytest
import torch

from lightning_plugins.curvature import sam_gap


def test_on_a_quadratic_loss_it_is_the_closed_form():
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


def test_an_error_puts_the_weights_back():
    weight = torch.ones(2, requires_grad=True)

    def fails_when_moved(x):
        if not torch.equal(weight.detach(), torch.ones(2)):
            raise RuntimeError("on purpose")
        return (weight * x).sum()

    with pytest.raises(RuntimeError, match="on purpose"):
        sam_gap(fails_when_moved, [weight], [(torch.ones(1, 2),)])
    assert torch.equal(weight.detach(), torch.ones(2))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="rho=0"):
        sam_gap(torch.sum, [], [(torch.zeros(1),)], rho=0)
    with pytest.raises(ValueError, match="batches is empty"):
        sam_gap(torch.sum, [], [])
