"""Formats of exchanged tensors: sizes, rounding, and real against simulated averages."""

import decentralized_agents as harness
import pytest
import torch

from lightning_plugins.strategies.stacked_agents import mixed_rows
from lightning_plugins.strategies.topologies import RandomMatching
from lightning_plugins.strategies.wire import ErrorFeedback, Wire, encoded_mean

VALUES = torch.randn(26_122, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "share"), [("weights", 1), ("bfloat16", 0.5), ("int8", 0.27)])
def test_encoded_sizes(name, share):
    wire = Wire(name)
    encoded = wire.encode(VALUES)
    assert encoded.nbytes == wire.nbytes(VALUES) <= share * VALUES.nbytes


def test_int8_rounds_to_a_127th_of_the_largest_value_of_a_block():
    wire = Wire("int8")
    error = (wire.decode(wire.encode(VALUES), VALUES) - VALUES).abs()
    for block, errors in zip(VALUES.split(256), error.split(256), strict=True):
        assert float(errors.max()) <= float(block.abs().max()) / 127 * 0.501


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["bfloat16", "int8"])
def test_values_that_are_not_finite_remain_so(name, bad):
    values = VALUES[:300].clone()
    values[7] = bad
    decoded = Wire(name).decode(Wire(name).encode(values), values)
    assert not bool(torch.isfinite(decoded).all())
    assert bool(torch.isfinite(decoded[256:]).all())


def test_error_feedback_makes_the_mean_of_transfers_exact():
    wire, feedback = Wire("int8"), ErrorFeedback()
    sums, rounds = torch.zeros_like(VALUES), 50
    for _ in range(rounds):
        values = feedback.add_to("x", VALUES)
        sent = wire.decode(wire.encode(values), VALUES)
        feedback.keep("x", values, sent)
        sums += sent
    torch.testing.assert_close(sums / rounds, VALUES, rtol=0, atol=1e-3)


def test_mixing_pairs_in_int8_preserves_the_mean():
    values = torch.randn(6, 500, generator=torch.Generator().manual_seed(1))
    after = mixed_rows(values, RandomMatching().plan(0, 0, range(6)), Wire("int8"))
    torch.testing.assert_close(after.mean(0), values.mean(0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["bfloat16", "int8"])
def test_real_and_simulated_agents_average_to_the_same_bits(name, tmp_path):
    results = harness.run_agents(harness.encoded_averages, 3, tmp_path, name, 4)
    feedback, wire = ErrorFeedback(), Wire(name)
    for step in range(4):
        rows = torch.stack([harness.noise(agent, step, (700,)) for agent in range(3)])
        mean, sent = encoded_mean(rows, wire, feedback, "mean")
        for agent, result in enumerate(results):
            assert torch.equal(result[step][0], mean)
            assert torch.equal(result[step][1], sent[agent])
    # A ring all-reduce sends as much: 2 (n-1)/n of the payload.
    assert results[0][4] == pytest.approx(4 * 4 / 3 * wire.nbytes(rows[0]), rel=0.01)
