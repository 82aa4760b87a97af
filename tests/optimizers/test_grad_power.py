"""GradPower classes against their base optimizers."""

import copy
import functools
import multiprocessing
import pickle
import subprocess
import sys

import pytest
import torch
from small_transformers import largest_difference, same_weights, train, transformer
from torch import nn
from torch.optim import SGD, AdamW, NAdam

from lightning_plugins.optimizers import (
    AdamMini,
    AdamWPower,
    BlockwiseAdamMini,
    BlockwiseAdamW,
    BlockwiseLion,
    GradPower,
    Lion,
    MuonAdamW,
    MuonPower,
    SGDPower,
    gradpower,
)
from lightning_plugins.optimizers.sign_power import sign_power_

BASES = {
    "AdamW": functools.partial(AdamW, lr=1e-2),
    "AdamW foreach": functools.partial(AdamW, lr=1e-2, foreach=True),
    "AdamW fused": functools.partial(AdamW, lr=1e-2, fused=True),
    "SGD": functools.partial(SGD, lr=1e-1, momentum=0.9, weight_decay=1e-2),
    "NAdam": functools.partial(NAdam, lr=1e-2),
}
OURS = {
    "AdamMini": functools.partial(AdamMini, lr=1e-2, head_dim=8),
    "Lion": functools.partial(Lion, lr=1e-3),
    "MuonAdamW": functools.partial(MuonAdamW, lr=1e-2),
    "BlockwiseAdamW": functools.partial(BlockwiseAdamW, lr=1e-3),
    "BlockwiseAdamMini": functools.partial(BlockwiseAdamMini, lr=1e-3, head_dim=8),
    "BlockwiseLion": functools.partial(BlockwiseLion, lr=1e-4),
}


def powered(base, p, **arguments):
    return functools.partial(gradpower(base.func, p), **base.keywords, **arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_with_power_one_the_steps_equal_the_plain_optimizers_bit_for_bit(base, dtype):
    plain, ours = transformer("llama", dtype), transformer("llama", dtype)
    train(plain, base(plain.parameters()), 50)
    train(ours, powered(base, 1)(ours.parameters()), 50)
    assert same_weights(plain, ours)


class ByHand:
    """Transforms the gradients, then steps with the plain optimizer."""

    def __init__(self, optimizer, p):
        self.optimizer, self.p = optimizer, p
        self.zero_grad = optimizer.zero_grad

    def step(self, closure):
        closure()
        for group in self.optimizer.param_groups:
            sign_power_([q.grad for q in group["params"] if q.grad is not None], self.p)
        self.optimizer.step()


@pytest.mark.parametrize("base", [*BASES.values(), *OURS.values()], ids=[*BASES, *OURS])
def test_a_step_is_the_transform_followed_by_the_optimizers_step(base):
    architecture = "llama" if base in BASES.values() else "gpt2"
    by_hand, ours, plain = (transformer(architecture) for _ in range(3))
    train(by_hand, ByHand(base(by_hand.parameters()), 1.2), 10)
    train(ours, powered(base, 1.2)(ours.parameters()), 10)
    assert same_weights(by_hand, ours)
    train(plain, base(plain.parameters()), 10)
    assert not same_weights(plain, ours)


@pytest.mark.parametrize("base", OURS.values(), ids=OURS)
def test_with_power_one_the_steps_of_our_optimizers_are_unchanged(base):
    plain, ours = transformer("gpt2"), transformer("gpt2")
    train(plain, base(plain.parameters()), 5)
    train(ours, powered(base, 1)(ours.parameters()), 5)
    assert same_weights(plain, ours)


TYPED = """
from typing import assert_type

from torch.optim import SGD

from lightning_plugins.optimizers import BlockwiseAdamW, Lion, gradpower

assert_type(gradpower(SGD, 1.2), type[SGD])
assert_type(gradpower(BlockwiseAdamW, 1.2)([], lr=0.1), BlockwiseAdamW)
gradpower(Lion, 1.2)([], lr=0.1, betas=(0.9, 0.99))
gradpower(SGD, 1.2)([], learning_rate=0.1)
gradpower(Lion, 1.2)([], betas=0.9)
"""


@pytest.mark.slow
def test_type_checkers_verify_the_arguments_of_the_base(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(TYPED)
    command = [
        *(sys.executable, "-m", "mypy", "--config-file=", "--follow-imports=silent"),
        *("--ignore-missing-imports", "--cache-dir", str(tmp_path), str(program)),
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    errors = [line for line in run.stdout.splitlines() if "error:" in line]
    assert len(errors) == 2, run.stdout + run.stderr
    assert 'program.py:11: error: Unexpected keyword argument "learning_rate"' in errors[0]
    assert "program.py:12: error: Argument" in errors[1]


def test_compiled_and_eager_agree():
    eager, compiled = transformer("llama"), transformer("llama")
    train(eager, AdamWPower(eager.parameters(), lr=1e-2), 20)
    train(compiled, AdamWPower(compiled.parameters(), lr=1e-2, compile=True), 20)
    assert largest_difference(eager, compiled) < 1e-4


def test_each_group_uses_its_own_exponent():
    one, two = nn.Parameter(torch.tensor([4.0])), nn.Parameter(torch.tensor([4.0]))
    optimizer = SGDPower([{"params": [one], "p": 2.0}, {"params": [two]}], p=0.5, lr=1.0)
    one.grad, two.grad = torch.tensor([3.0]), torch.tensor([9.0])
    optimizer.step()
    assert (one.item(), two.item()) == pytest.approx((4 - 9, 4 - 3), rel=1e-6)


def test_empty_groups_and_frozen_parameters_are_unchanged():
    frozen, moving = nn.Parameter(torch.ones(1), requires_grad=False), nn.Parameter(torch.ones(1))
    optimizer = SGDPower([{"params": []}, {"params": [frozen, moving]}], p=2.0, lr=1.0)
    moving.grad = torch.tensor([3.0])
    optimizer.step()
    assert (frozen.item(), moving.item()) == pytest.approx((1, 1 - 9), rel=1e-6)
    with pytest.raises(ValueError, match="empty parameter list"):
        SGDPower([], p=2.0)


def test_adam_is_invariant_to_the_scale_of_a_coordinate():
    scale = torch.tensor([1e-3, 1.0, 50.0], dtype=torch.float64)
    ends = []
    for factor in (torch.ones_like(scale), scale):
        weight = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        optimizer = AdamWPower([weight], lr=0.1, p=1.2, eps=0.0, weight_decay=0.0)
        for step in range(20):
            generator = torch.Generator().manual_seed(step)
            weight.grad = factor * torch.randn(3, generator=generator, dtype=torch.float64)
            optimizer.step()
        ends.append(weight.detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-9, atol=1e-9)


def test_the_yaml_form_returns_the_grad_power_class():
    by_class, by_form = transformer("llama"), transformer("llama")
    train(by_class, gradpower(NAdam, 1.3)(by_class.parameters(), lr=1e-2), 5)
    form = GradPower(by_form.parameters(), base=functools.partial(NAdam, lr=1e-2), p=1.3)
    train(by_form, form, 5)
    assert type(form) is gradpower(NAdam, 1.3)
    assert same_weights(by_class, by_form)


def test_hooks_run_once_even_if_the_plain_class_was_used_before():
    weight = nn.Parameter(torch.ones(2))
    AdamW([nn.Parameter(torch.ones(1))])
    optimizer = AdamWPower([weight])
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    weight.grad = torch.ones(2)
    optimizer.step()
    assert calls == ["before", "after"]


def test_checkpoints_are_exchangeable_with_adamw():
    model = transformer("llama")
    plain = AdamW(model.parameters(), lr=1e-2)
    train(model, plain, 3)
    ours = AdamWPower(model.parameters(), lr=5.0, p=1.1)
    ours.load_state_dict(plain.state_dict())
    assert (ours.param_groups[0]["lr"], ours.param_groups[0]["p"]) == (1e-2, 1.1)
    train(model, ours, 3)
    back = AdamW(model.parameters())
    back.load_state_dict(ours.state_dict())
    weight = next(model.parameters())
    assert back.state[weight]["step"] == 6
    train(model, back, 1)


def _p_of(optimizer):
    return type(optimizer).__name__, optimizer.param_groups[0]["p"], optimizer._floor


@pytest.mark.parametrize("make", [gradpower(NAdam, 1.3), AdamWPower, SGDPower])
def test_instances_and_classes_can_be_pickled_and_copied(make):
    optimizer = make([nn.Parameter(torch.ones(2))], p=1.4, floor=1e-8)
    pickled = pickle.loads(pickle.dumps(optimizer))  # noqa: S301
    for twin in (pickled, copy.deepcopy(optimizer)):
        assert type(twin) is type(optimizer)
        assert _p_of(twin) == _p_of(optimizer)
        twin.step()
    assert pickle.loads(pickle.dumps(make)) is make  # noqa: S301


def _name_of(cls):
    return cls.__name__, cls([nn.Parameter(torch.ones(1))]).param_groups[0]["p"]


@pytest.mark.slow
def test_a_generated_class_can_be_unpickled_in_a_spawned_process():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_name_of, [gradpower(NAdam, 1.3)]) == ("NAdamPower", 1.3)


def test_the_closure_runs_once_with_gradients():
    weight = nn.Parameter(torch.ones(2))
    optimizer = AdamWPower([weight])
    runs = []

    def closure():
        runs.append(torch.is_grad_enabled())
        loss = weight.square().sum()
        loss.backward()
        return loss

    with torch.no_grad():
        assert float(optimizer.step(closure)) == 2
    assert runs == [True]


def test_fused_optimizers_leave_unscaling_to_the_scaler():
    optimizer = AdamWPower([nn.Parameter(torch.ones(2))], fused=True)
    assert not optimizer._step_supports_amp_scaling


@pytest.mark.parametrize("p", [0, -1.0, float("nan"), float("inf"), "1.2", None])
def test_invalid_exponents_raise_an_error(p):
    with pytest.raises(ValueError, match="p="):
        AdamWPower([nn.Parameter(torch.ones(1))], p=p)
    with pytest.raises(ValueError, match="p="):
        AdamWPower([{"params": [nn.Parameter(torch.ones(1))], "p": p}])


class Needy(torch.optim.SGD):
    """Cannot step without a closure."""

    def step(self, closure):
        return closure()


def test_unsupported_base_classes_raise_an_error():
    for base in (torch.optim.LBFGS, torch.optim.SparseAdam):
        with pytest.raises(ValueError, match=base.__name__):
            gradpower(base, 1.2)
    with pytest.raises(ValueError, match="base_cls=Needy requires a closure"):
        gradpower(Needy, 1.2)
    with pytest.raises(TypeError, match=r"torch\.optim\.Optimizer"):
        gradpower(nn.Linear, 1.2)
    with pytest.raises(ValueError, match="floor=-1"):
        AdamWPower([nn.Parameter(torch.ones(1))], floor=-1)


def test_muon_and_sgd_have_no_default_exponent():
    for cls in (MuonPower, SGDPower):
        with pytest.raises(TypeError, match="'p'"):
            cls([nn.Parameter(torch.ones(1))])


def test_a_sparse_gradient_raises_an_error_with_the_remedy():
    embedding = nn.Embedding(5, 2, sparse=True)
    optimizer = SGDPower(embedding.parameters(), p=1.2, lr=0.1)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(TypeError, match="sparse=False"):
        optimizer.step()
