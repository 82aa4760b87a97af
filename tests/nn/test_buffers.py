import pytest
import torch
from torch import nn

from lightning_plugins.nn.buffers import buffers_untouched


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("in_place", torch.zeros(3))
        self.register_buffer("replaced", torch.zeros(()))
        self.register_buffer("expanded", torch.arange(3).expand(2, 3))
        self.register_buffer("absent", None)

    def forward(self, x):
        self.in_place += 1
        self.replaced = self.replaced + 1
        return x


def test_buffers_are_the_same_tensors_with_the_same_bits():
    network = nn.Sequential(nn.BatchNorm1d(3), Counter())
    network(torch.randn(4, 3))
    before = {name: (buffer, buffer.clone()) for name, buffer in network.named_buffers()}
    with buffers_untouched(network):
        network(torch.randn(4, 3) + 5)
        assert network[1].replaced == 2
    after = dict(network.named_buffers())
    assert after.keys() == before.keys()
    for name, (buffer, value) in before.items():
        assert after[name] is buffer
        assert torch.equal(buffer, value)


def test_an_error_inside_puts_them_back_too():
    network = Counter()
    network.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), buffers_untouched(network):
        network(torch.zeros(1))
    assert network.in_place.sum() == 0


def test_gradients_can_be_computed_inside():
    layer = nn.BatchNorm1d(3)
    with buffers_untouched(layer):
        layer(torch.randn(4, 3)).square().sum().backward()
    assert layer.weight.grad is not None
