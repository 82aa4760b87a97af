import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lightning_plugins.curvature import HessianOperator, largest_eigenvalues


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def samples(count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 5, generator=generator, dtype=torch.float64)
    return images, torch.randint(3, (count,), generator=generator)


def exact_hessian(network, images, labels):
    shapes = [(name, p.shape) for name, p in network.named_parameters()]

    def loss(flat):
        parts = flat.split([shape.numel() for _, shape in shapes])
        weights = {
            name: part.view(shape) for (name, shape), part in zip(shapes, parts, strict=True)
        }
        return cross_entropy(torch.func.functional_call(network, weights, (images,)), labels)

    flat = torch.cat([p.detach().flatten() for p in network.parameters()])
    return torch.func.hessian(loss)(flat)


def operator_of(network, batches):
    return HessianOperator(lambda x, y: cross_entropy(network(x), y), network.parameters(), batches)


def test_products_equal_those_of_the_exact_hessian():
    network, (images, labels) = small_network(), samples(20)
    exact = exact_hessian(network, images, labels)
    operator = operator_of(network, [(images, labels)])
    products = torch.stack([operator(row) for row in torch.eye(operator.dimension).double()])
    torch.testing.assert_close(products, exact, rtol=1e-10, atol=1e-12)


def test_unequal_batches_give_the_hessian_of_the_mean_over_samples():
    network, (images, labels) = small_network(), samples(20)
    vector = torch.linspace(-1, 1, operator_of(network, [(images, labels)]).dimension).double()
    whole = operator_of(network, [(images, labels)])(vector)
    parts = operator_of(network, [(images[:13], labels[:13]), (images[13:], labels[13:])])(vector)
    torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-12)


def test_largest_eigenvalues_equal_those_of_the_exact_hessian():
    network, (images, labels) = small_network(), samples(20)
    exact = torch.linalg.eigvalsh(exact_hessian(network, images, labels)).flip(0)
    operator = operator_of(network, [(images, labels)])
    found = largest_eigenvalues(
        operator, operator.dimension, 3, tolerance=1e-10, dtype=torch.float64
    )
    torch.testing.assert_close(found.values, exact[:3], rtol=1e-9, atol=0)


def test_attention_has_a_hessian():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).eval()
    tokens = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0))
    operator = HessianOperator(lambda x: layer(x).square().mean(), layer.parameters(), [(tokens,)])
    u, v = torch.randn(2, operator.dimension, generator=torch.Generator().manual_seed(1))
    # A Hessian is symmetric.
    torch.testing.assert_close(u @ operator(v), v @ operator(u), rtol=1e-3, atol=1e-5)


def test_parameters_that_the_loss_does_not_use_have_zero_rows_and_columns():
    network, (images, labels) = small_network(), samples(20)
    unused = nn.Parameter(torch.ones(2).double())
    operator = HessianOperator(
        lambda x, y: cross_entropy(network(x), y),
        [*network.parameters(), unused],
        [(images, labels)],
    )
    products = torch.stack([operator(row) for row in torch.eye(operator.dimension).double()])
    expected = torch.block_diag(exact_hessian(network, images, labels), torch.zeros(2, 2).double())
    torch.testing.assert_close(products, expected, rtol=1e-10, atol=1e-12)


def test_gradients_of_the_network_are_not_changed():
    network, batch = small_network(), samples(4)
    operator_of(network, [batch])(torch.ones(57).double())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_frozen_parameters_and_missing_batches_are_refused():
    network = small_network()
    with pytest.raises(ValueError, match="batches is empty"):
        operator_of(network, [])
    network[0].weight.requires_grad_(False)
    with pytest.raises(ValueError, match="requires_grad"):
        operator_of(network, [samples(4)])
