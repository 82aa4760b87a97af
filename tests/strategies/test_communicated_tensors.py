"""Packing, unpacking and mixing of flat buffers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_plugins.strategies.communicated_tensors import FlatBuffers, are_finite, mixed
from lightning_plugins.strategies.topologies import RandomMatching, StaticExponential


def tensors():
    generator = torch.Generator().manual_seed(0)
    return {
        "a": torch.randn(3, 4, generator=generator),
        "half": torch.randn(5, generator=generator).to(torch.bfloat16),
        "transposed": torch.randn(2, 6, generator=generator).t(),
        "scalar": torch.randn((), generator=generator),
    }


def test_unpack_restores_packed_values_in_the_same_tensors():
    held = tensors()
    before = {name: tensor.clone() for name, tensor in held.items()}
    flat = FlatBuffers(held)
    flats = flat.pack()
    assert [(f.dtype, f.numel()) for f in flats] == [(torch.float32, 25), (torch.bfloat16, 5)]
    for tensor in held.values():
        tensor.zero_()
    flat.unpack(flats)
    assert all(torch.equal(held[name], before[name]) for name in held)
    assert flat.nbytes == 25 * 4 + 5 * 2


def test_packed_buffers_are_copies():
    held = tensors()
    flats = FlatBuffers(held).pack()
    held["a"].zero_()
    assert flats[0][:12].count_nonzero() == 12


def test_the_fingerprint_depends_on_shapes_and_names_but_not_on_values():
    held = tensors()
    same = {name: tensor + 1 for name, tensor in held.items()}
    assert FlatBuffers(held).fingerprint == FlatBuffers(same).fingerprint
    reshaped = {**held, "a": held["a"].reshape(4, 3)}
    renamed = {("b" if name == "a" else name): tensor for name, tensor in held.items()}
    assert len({FlatBuffers(x).fingerprint for x in (held, reshaped, renamed)}) == 3


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_non_finite_value_is_found(bad):
    flat = torch.ones(1000)
    assert are_finite([flat, flat])
    flat[777] = bad
    assert not are_finite([torch.ones(3), flat])


def test_large_finite_values_whose_sum_overflows_are_finite():
    assert are_finite([torch.full((100,), 1e308, dtype=torch.float64)])


wires = pytest.mark.parametrize("wire", [torch.float32, torch.bfloat16])


def one_round(values, plan, wire):
    """Compute all agents' rows after a round, each from the tensors it would receive."""
    sent = values.to(wire)
    return torch.stack(
        [
            mixed(
                values[agent],
                sent[agent],
                [sent[j] for j in plan.sources(agent)],
                list(plan.sources(agent).values()),
            )
            for agent in range(len(values))
        ]
    )


@wires
def test_agents_that_agree_remain_bit_identical(wire):
    values = torch.randn(50).expand(7, 50)
    plan = StaticExponential().plan(0, 0, range(7))
    assert torch.equal(one_round(values, plan, wire), values)


@wires
@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 12), seed=st.integers(0, 1000))
def test_mixing_preserves_the_mean_despite_rounding_on_the_wire(n, seed, wire):
    values = torch.randn(n, 40, generator=torch.Generator().manual_seed(seed))
    after = one_round(values, RandomMatching().plan(seed, 0, range(n)), wire)
    torch.testing.assert_close(after.mean(0), values.mean(0), rtol=0, atol=1e-6)


def test_mixing_equals_the_matrix_product():
    values = torch.randn(9, 30, generator=torch.Generator().manual_seed(1))
    plan = StaticExponential().plan(0, 0, range(9))
    expected = plan.matrix(9) @ values.double()
    torch.testing.assert_close(
        one_round(values, plan, torch.float32).double(), expected, rtol=0, atol=1e-6
    )
