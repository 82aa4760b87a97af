"""MuonAdamW against PyTorch's two optimizers, each on its own parameters."""

import copy
import pickle
from collections import defaultdict

import pytest
import torch
from small_transformers import same_weights, train, transformer
from torch.optim import AdamW, Muon

from lightning_plugins.optimizers import MuonAdamW, MuonPower
from lightning_plugins.optimizers.blocks import blocks_of
from lightning_plugins.optimizers.sign_power import sign_power_


class Two:
    def __init__(self, model, lr, p=1.0):
        hidden, rest = [], []
        for one in blocks_of(model.named_parameters(), "Test"):
            is_hidden = one.parameter.dim() == 2 and set(one.blocks) <= {"qk", "vo", "ffn"}
            (hidden if is_hidden else rest).append(one.parameter)
        self.optimizers = (
            Muon(hidden, lr=lr, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
            AdamW(rest, lr=lr, weight_decay=0.1, betas=(0.9, 0.95)),
        )
        self.model, self.p = model, p

    def zero_grad(self):
        self.model.zero_grad()

    def step(self, closure):
        closure()
        sign_power_([q.grad for q in self.model.parameters() if q.grad is not None], self.p)
        for optimizer in self.optimizers:
            optimizer.step()


@pytest.mark.scale(plugin="MuonAdamW", strategy="one device")
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2_moe"])
def test_each_parameter_is_updated_as_by_its_own_optimizer(architecture):
    apart, ours = transformer(architecture), transformer(architecture)
    train(apart, Two(apart, 1e-2), 5)
    train(ours, MuonAdamW(ours.named_parameters(), lr=1e-2), 5)
    assert same_weights(apart, ours)


@pytest.mark.scale(plugin="MuonPower", strategy="one device")
def test_muon_power_transforms_all_gradients_first():
    apart, ours = transformer("llama"), transformer("llama")
    train(apart, Two(apart, 1e-2, p=0.9), 5)
    train(ours, MuonPower(ours.named_parameters(), lr=1e-2, p=0.9), 5)
    assert same_weights(apart, ours)


def test_with_power_one_the_steps_equal_muons_bit_for_bit():
    plain, ours = transformer("llama"), transformer("llama")
    train(plain, MuonAdamW(plain.named_parameters(), lr=1e-2), 50)
    train(ours, MuonPower(ours.named_parameters(), lr=1e-2, p=1), 50)
    assert same_weights(plain, ours)


def test_it_resumes():
    straight, resumed = transformer("llama"), transformer("llama")
    train(straight, MuonAdamW(straight.named_parameters(), lr=1e-2), 6)
    before = MuonAdamW(resumed.named_parameters(), lr=1e-2)
    train(resumed, before, 3)
    after = MuonAdamW(resumed.named_parameters(), lr=1.0)
    after.load_state_dict(before.state_dict())
    train(resumed, after, 3, first=3)
    assert same_weights(straight, resumed)


@pytest.mark.parametrize("steps", [0, 2])
def test_copies_use_their_own_parameters_and_state(steps):
    model = transformer("llama")
    optimizer = MuonAdamW(model.named_parameters(), lr=1e-2)
    train(model, optimizer, steps)
    for twin in (pickle.loads(pickle.dumps(optimizer)), copy.deepcopy(optimizer)):  # noqa: S301
        before = [p.detach().clone() for group in twin.param_groups for p in group["params"]]
        for group in twin.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
        twin.step()
        after = [p for group in twin.param_groups for p in group["params"]]
        assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        assert len(twin.state) == len(after)
    assert len(optimizer.state) == (len(list(model.parameters())) if steps else 0)


def test_a_replaced_state_is_used():
    model = transformer("llama")
    optimizer = MuonAdamW(model.named_parameters(), lr=1e-2)
    train(model, optimizer, 2)
    optimizer.state = defaultdict(dict)
    train(model, optimizer, 1)
    assert {float(state["step"]) for state in optimizer.state.values() if "step" in state} == {1}


def test_schedules_change_both_rates():
    optimizer = MuonAdamW(transformer("llama").named_parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [5e-3, 5e-3]


def test_arguments_reach_both_optimizers():
    model = transformer("llama")
    with pytest.raises(ValueError, match="Learning rate"):
        MuonAdamW(model.named_parameters(), lr=-1)
    with pytest.raises(ValueError, match="Adjust learning rate"):
        MuonAdamW(model.named_parameters(), adjust_lr_fn="other")


def test_matrices_of_one_row_are_updated_by_adamw():
    weight = torch.nn.Parameter(torch.ones(1, 4))
    optimizer = MuonAdamW([("mlp.weight", weight)], patterns={"mlp": "ffn"})
    assert [group["name"] for group in optimizer.param_groups] == ["adamw"]
