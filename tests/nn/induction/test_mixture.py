import math

import pytest
import torch

from lightning_plugins.nn.induction import MixtureTransformer


def by_the_formula(network, x):
    """One sequence, tokens counted from 1, sums written out."""
    p1, w1, p2, v1, k, v2 = (
        getattr(network, name).item() for name in ("p1", "w1", "p2", "v1", "k", "v2")
    )
    length = len(x)
    x = dict(enumerate(x.tolist(), start=1))

    def average(weights):
        total = sum(weight for weight, _ in weights)
        return sum(weight * value for weight, value in weights) / total

    y = {
        s: w1 * average([(math.exp(-p1 * (j - 1)), x[s - j]) for j in range(1, s)])
        for s in range(2, length)
    }
    four = average([(math.exp(-p2 * (length - 1 - s)), y[s]) for s in y])
    induction = average([(math.exp(k**2 * x[length] * y[s]), x[s]) for s in y])
    return v1 * four, v2 * induction


@pytest.mark.parametrize("length", [4, 9])
def test_the_network_is_the_formula(length):
    network = MixtureTransformer().double()
    with torch.no_grad():
        for place, parameter in enumerate(network.parameters(), start=1):
            parameter.fill_(0.2 * place)
    tokens = torch.randn(3, length, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.tensor([by_the_formula(network, x) for x in tokens], dtype=torch.float64)
    torch.testing.assert_close(torch.stack(network(tokens), dim=1), expected)


def test_an_ideal_first_layer_hands_on_the_token_before_exactly():
    network = MixtureTransformer()
    network.idealize_first_layer()
    with torch.no_grad():
        network.p2.fill_(60.0)
        network.v1.fill_(1.0)
    tokens = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network(tokens)[0], tokens[:, -3])


def test_gradients_are_finite_at_the_limit_and_at_the_start():
    for prepare in (lambda network: None, MixtureTransformer.idealize_first_layer):
        network = MixtureTransformer()
        prepare(network)
        sum(part.square().sum() for part in network(torch.randn(4, 6))).backward()
        assert all(torch.isfinite(p.grad) for p in network.parameters())


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="sigma_init=0"):
        MixtureTransformer(0)
    with pytest.raises(ValueError, match="length=3"):
        MixtureTransformer()(torch.zeros(1, 3))
