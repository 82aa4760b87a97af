"""Models whose weights are easily left out of gossip and merges, in two real processes."""

import decentralized_models as harness
import pytest
import torch
from decentralized_agents import run_agents
from decentralized_trainers import free_port


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    names = list(harness.cases())
    results = run_agents(
        harness.train_models, 2, folder, free_port(), str(folder), names, timeout_seconds=240
    )
    assert None not in results
    return lambda case: [result[case] for result in results]


def assert_same(first, second):
    for name, own in first["parameters"].items():
        assert torch.equal(own, second["parameters"][name]), name


@pytest.mark.parametrize("case", ["toggled", "complex", "unfrozen, adaptive"])
def test_averages_include_every_trained_parameter(ran, case):
    assert_same(*ran(case))
    if case == "complex":
        assert bool(ran(case)[0]["parameters"]["filter"].imag.any())


def test_a_layer_that_joins_an_outer_optimizer_moves_by_its_own_gradients(ran):
    for result in ran("unfrozen"):
        assert 0 < result["moved"] < 0.01


def test_a_layer_that_was_trained_and_then_frozen_is_merged(ran):
    assert_same(*ran("frozen later"))


def test_averaging_optimizer_state_includes_state_that_one_agent_lacks(ran):
    first, second = ran("unused")
    assert_same(first, second)
    assert len(first["states"]) == len(second["states"]) == 6
    for own, other in zip(first["states"], second["states"], strict=True):
        assert own.keys() == other.keys()
        assert all(torch.equal(own[key], other[key]) for key in own)


def test_a_metric_of_list_state_is_reduced_over_validation_sets_of_different_sizes(ran):
    first, second = ran("ranked")
    assert first["metrics"]["auroc"] == second["metrics"]["auroc"]


def test_averages_are_sent_in_the_format_of_the_wire(ran):
    whole = ran("weights")[0]["bytes"]
    assert ran("bfloat16")[0]["bytes"] * 2 == whole
    # A block of 256 values is larger than half of this model, so its scale weighs more.
    assert ran("int8")[0]["bytes"] <= 0.29 * whole


@pytest.mark.parametrize(("wire", "error"), [("bfloat16", 0.01), ("int8", 0.02)])
def test_rounded_averages_stay_close_to_exact_ones(ran, wire, error):
    for exact, rounded in zip(ran("weights"), ran(wire), strict=True):
        for name, own in exact["parameters"].items():
            torch.testing.assert_close(own, rounded["parameters"][name], rtol=0, atol=error)


def test_an_outer_step_on_rounded_averages_leaves_all_agents_with_the_same_weights(ran):
    assert_same(*ran("int8, outer"))
