import pytest
import torch
from torch import nn

from lightning_plugins.nn.module_state import evaluation_mode, state_untouched


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


def test_buffers_are_restored_as_the_same_tensors_with_the_same_bits():
    network = nn.Sequential(nn.BatchNorm1d(3), Counter())
    network(torch.randn(4, 3))
    before = {name: (buffer, buffer.clone()) for name, buffer in network.named_buffers()}
    with state_untouched(network):
        network(torch.randn(4, 3) + 5)
        assert network[1].replaced == 2
    after = dict(network.named_buffers())
    assert after.keys() == before.keys()
    for name, (buffer, value) in before.items():
        assert after[name] is buffer
        assert torch.equal(buffer, value)


def test_buffers_are_restored_after_an_error():
    network = Counter()
    network.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), state_untouched(network):
        network(torch.zeros(1))
    assert network.in_place.sum() == 0


def test_gradients_can_be_computed_while_buffers_are_kept():
    layer = nn.BatchNorm1d(3)
    with state_untouched(layer):
        layer(torch.randn(4, 3)).square().sum().backward()
    assert layer.weight.grad is not None


def test_evaluation_mode_restores_every_mode_also_after_an_error():
    class KeepsItsMode(nn.Dropout):
        def train(self, mode=True):
            raise AssertionError("must not be called")

    network = nn.Sequential(KeepsItsMode(), nn.BatchNorm1d(2), nn.Sequential(nn.Dropout()))
    network[1].training = False

    def fail():
        assert not any(module.training for module in network.modules())
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"), evaluation_mode(network):
        fail()
    assert [module.training for module in network.modules()] == [True, True, False, True, True]


def test_lazy_and_scripted_modules_are_accepted():
    scripted = torch.jit.script(nn.BatchNorm1d(2))
    with state_untouched(nn.Sequential(scripted, nn.LazyLinear(3))):
        scripted(torch.randn(4, 2) + 3)
    assert scripted.running_mean.abs().sum() == 0
