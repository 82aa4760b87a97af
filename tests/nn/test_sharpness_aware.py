import pytest
import torch
from reference_sam import train_with_reference_sam
from torch import nn
from torch.nn.functional import cross_entropy

from lightning_plugins.nn.sharpness_aware import WeightPerturbation


def weights_and_optimizer(*values, grads):
    parameters = [torch.tensor(value, requires_grad=True) for value in values]
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = None if grad is None else torch.tensor(grad)
    return parameters, torch.optim.SGD(parameters, lr=0.1)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        # ||g|| = 5 over both tensors.
        ("sam", ([1.0 + 0.5 * 3 / 5, -2.0], [4.0 + 0.5 * 4 / 5])),
        # |w| g = (3, 0, 16), its norm sqrt(265), step r w^2 g / norm = r (3, 0, 64) / norm.
        ("asam", ([1.0 + 0.5 * 3 / 265**0.5, -2.0], [4.0 + 0.5 * 64 / 265**0.5])),
        ("usam", ([1.0 + 0.5 * 3, -2.0], [4.0 + 0.5 * 4])),
    ],
)
def test_the_perturbation_equals_the_closed_form(mode, expected):
    parameters, optimizer = weights_and_optimizer([1.0, -2.0], [4.0], grads=([3.0, 0.0], [4.0]))
    norm = WeightPerturbation(optimizer, rho=0.5, mode=mode).perturb()
    assert norm.item() == pytest.approx(265**0.5 if mode == "asam" else 5.0)
    for parameter, value in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), torch.tensor(value))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_restoring_is_bit_for_bit(dtype):
    generator = torch.Generator().manual_seed(0)
    parameter = torch.randn(1000, generator=generator).to(dtype).requires_grad_()
    parameter.grad = torch.randn(1000, generator=generator).to(dtype)
    before = parameter.detach().clone()
    with WeightPerturbation(torch.optim.SGD([parameter], lr=0.1), rho=0.3):
        assert not torch.equal(parameter.detach(), before)
    assert torch.equal(parameter.detach(), before)


def test_restoring_uses_the_latest_weights():
    (parameter,), optimizer = weights_and_optimizer([1.0], grads=([1.0],))
    perturbation = WeightPerturbation(optimizer)
    for value in (2.0, 3.0):
        parameter.data.fill_(value)
        parameter.grad = torch.ones(1)
        with perturbation:
            pass
        assert parameter.item() == value


def test_parameters_without_a_gradient_are_not_changed():
    (moved, stays), optimizer = weights_and_optimizer([1.0], [2.0], grads=([1.0], None))
    with WeightPerturbation(optimizer):
        assert moved.item() > 1.0
        assert stays.item() == 2.0


def test_without_any_gradient_nothing_happens():
    (parameter,), optimizer = weights_and_optimizer([1.0], grads=(None,))
    with WeightPerturbation(optimizer):
        assert parameter.item() == 1.0


def test_the_loop_in_the_module_docstring_is_sharpness_aware_minimization():
    torch.manual_seed(0)
    features, labels = torch.randn(12, 4), torch.randint(3, (12,))
    batches = [(features[:6], labels[:6]), (features[6:], labels[6:])]
    ours, hand = nn.Linear(4, 3), nn.Linear(4, 3)
    hand.load_state_dict(ours.state_dict())
    optimizer = torch.optim.SGD(ours.parameters(), lr=0.1, momentum=0.9)
    perturbation = WeightPerturbation(optimizer, rho=0.1)
    for _ in range(2):
        for batch, targets in batches:
            optimizer.zero_grad()
            cross_entropy(ours(batch), targets).backward()
            with perturbation:
                optimizer.zero_grad()
                cross_entropy(ours(batch), targets).backward()
            optimizer.step()
    sgd = torch.optim.SGD(hand.parameters(), lr=0.1, momentum=0.9)
    train_with_reference_sam(hand, sgd, lambda: batches, lambda step: True)
    for one, other in zip(ours.parameters(), hand.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_weights_are_restored_after_an_error():
    (parameter,), optimizer = weights_and_optimizer([1.0], grads=([1.0],))
    with pytest.raises(RuntimeError, match="on purpose"), WeightPerturbation(optimizer):
        raise RuntimeError("on purpose")
    assert parameter.item() == 1.0


def test_a_routine_overflow_does_not_change_the_weights():
    (parameter,), optimizer = weights_and_optimizer([1.0, 2.0], grads=([1.0, float("inf")],))
    WeightPerturbation(optimizer).perturb(overflow_is_routine=True)
    assert parameter.tolist() == [1.0, 2.0]


def test_perturbing_twice_is_refused():
    _, optimizer = weights_and_optimizer([1.0], grads=([1.0],))
    perturbation = WeightPerturbation(optimizer)
    perturbation.perturb()
    with pytest.raises(RuntimeError, match="already perturbed"):
        perturbation.perturb()


def test_sparse_gradients_are_refused():
    embedding = nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="sparse=False"):
        WeightPerturbation(torch.optim.SGD(embedding.parameters(), lr=0.1)).perturb()
