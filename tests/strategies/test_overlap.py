"""Gossip in the background: what it waits for, keeps, saves and refuses."""

import decentralized_agents as harness
import pytest
import torch

from lightning_plugins.strategies import SimulatedDecentralizedStrategy
from lightning_plugins.strategies.communication import Communication
from lightning_plugins.strategies.configuration_checks import check_overlap
from lightning_plugins.strategies.ledger import CommLedger
from lightning_plugins.strategies.outer_optimizer import OuterNesterov
from lightning_plugins.strategies.schedule import Schedule
from lightning_plugins.strategies.stacked_agents import StackedAgents
from lightning_plugins.strategies.topologies import Complete, RandomMatching

ADAPTIVE = Schedule("adaptive", threshold=1.0)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("overlap")
    cases = {"late": (0.5, None)} | {how: (0.0, how) for how in ("NaN", "kill", "raise")}
    started = {
        name: harness.start_agents(harness.overlapping_rounds, 2, folder / name, *arguments)
        for name, arguments in cases.items()
    }
    return {name: harness.results_of(agents, folder / name, 60) for name, agents in started.items()}


def test_a_round_does_not_wait_for_the_other_agent(ran):
    first, second = ran["late"]
    assert first["error"] == second["error"] == ""
    # The first round starts at once; each further one needs the round before.
    assert first["blocked"][0] < 0.25
    assert all(blocked > 0.25 for blocked in first["blocked"][1:])
    assert all(blocked < 0.25 for blocked in second["blocked"])


def test_the_change_of_a_round_keeps_the_mean(ran):
    before, after = (torch.stack([r[key] for r in ran["late"]]) for key in ("before", "after"))
    assert not torch.equal(before, after)
    torch.testing.assert_close(after.mean(0), before.mean(0), rtol=0, atol=1e-6)
    assert torch.equal(after[0] - before[0] != 0, after[1] - before[1] != 0)


def test_the_state_holds_the_change_that_is_due(ran):
    for result in ran["late"]:
        _, changes = result["saved"]
        moved = result["after"] - result["before"]
        # The last bias is frozen; batch normalization's statistics take no part.
        torch.testing.assert_close(
            changes[0].sort().values, moved[:-3].sort().values, atol=1e-6, rtol=0
        )


def test_weights_that_are_not_finite_are_not_applied(ran):
    first, second = (result["error"] for result in ran["NaN"])
    assert "weights of another agent are not finite, so agent 0 did not apply them" in first
    assert "weights of agent 1 are not finite, so agent 1 did not apply them" in second


@pytest.mark.parametrize("how", ["kill", "raise"])
def test_an_agent_that_fails_ends_the_other_with_an_error(ran, how):
    first, second = ran[how]
    assert first["error"]
    if how == "raise":
        assert "agent 1 raised KeyError" in first["error"]
        assert "KeyError" in second["error"]
    else:
        assert second is None


@pytest.mark.parametrize("topology", [RandomMatching(), Complete()])
@pytest.mark.parametrize("wire", ["weights", "int8"])
def test_delayed_gossip_keeps_the_mean_and_brings_agents_together(topology, wire):
    rows = torch.randn(4, 300, generator=torch.Generator().manual_seed(0))
    mean = rows.mean(0)
    communication = Communication(topology, Schedule(), final_merge=False)
    agents = StackedAgents([rows], communication, CommLedger(), wire, overlap=True)
    distance = float(agents.consensus_distance())
    agents.after_step(1, float("inf"))
    assert float(agents.consensus_distance()) == distance  # not yet
    for step in range(2, 12):
        agents.after_step(step, float("inf"))
    agents.finish_gossip()
    torch.testing.assert_close(rows.mean(0), mean, rtol=0, atol=1e-5 if wire == "weights" else 0.02)
    assert float(agents.consensus_distance()) < 0.05 * distance


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((Communication(Complete(), outer=OuterNesterov()), "keep", None), "outer_lr"),
        (
            (Communication(Complete(), Schedule("adaptive", threshold=1.0)), "keep", None),
            "adaptive",
        ),
        ((Communication(Complete()), "average", None), "optimizer_state='average'; set 'keep'"),
        ((Communication(Complete()), "keep", "on_peer_failure='drop'; set 'raise'"), "drop"),
    ],
)
def test_what_needs_the_result_at_once_is_refused(arguments, message):
    with pytest.raises(ValueError, match=f"overlap=True does not support .*{message}"):
        check_overlap(*arguments)


def test_simulated_agents_take_the_option():
    assert SimulatedDecentralizedStrategy(4, overlap=True).overlap
