import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lightning_plugins.curvature import at_least_single_precision


def network(dtype):
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).to(dtype)
    layers[0].bias.requires_grad_(False)
    return layers


def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 4, generator=generator), torch.arange(8) % 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_measured_as_the_same_numbers_in_single_precision(dtype):
    half = network(dtype)
    single = copy.deepcopy(half).float()
    inputs, labels = batch()
    inputs = inputs.to(dtype)
    loss, parameters = at_least_single_precision(half, lambda x, y: cross_entropy(half(x), y))
    value = loss(inputs, labels)
    expected = cross_entropy(single(inputs.float()), labels)
    assert value.dtype == torch.float32
    assert value.item() == expected.item()
    gradients = torch.autograd.grad(value, parameters)
    trainable = [parameter for parameter in single.parameters() if parameter.requires_grad]
    for ours, exact in zip(gradients, torch.autograd.grad(expected, trainable), strict=True):
        assert torch.equal(ours, exact)


def test_the_network_keeps_its_weights_and_statistics():
    half = network(torch.bfloat16)
    before = copy.deepcopy(half.state_dict())
    parameters = dict(half.named_parameters())
    loss, _ = at_least_single_precision(half, lambda x: half(x).sum())
    loss(batch()[0])
    assert all(half.get_parameter(name) is value for name, value in parameters.items())
    after = half.state_dict()
    for name, value in before.items():
        if name != "1.num_batches_tracked":  # an integer, which is not replaced
            assert torch.equal(value, after[name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_other_weights_are_used_unchanged(dtype):
    full = network(dtype)

    def loss(x):
        return full(x).sum()

    measured, parameters = at_least_single_precision(full, loss)
    assert measured is loss
    assert [id(p) for p in parameters] == [id(p) for p in full.parameters() if p.requires_grad]
