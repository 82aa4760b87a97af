"""One of four real processes is lost: the others drop it by agreement and merge without it."""

import itertools
import time

import decentralized_agents as harness
import pytest
import torch
from decentralized_agents import Hurt

from lightning_plugins.strategies.topologies import Complete, RandomMatching, RandomPull

STEPS, TIMEOUT_SECONDS = 6, 2.0


def survivors_of(tmp_path, hurt, topology=None, agents=4):
    """What the agents return that come to their end, and how long they took."""
    started = time.monotonic()
    processes = harness.start_agents(
        harness.rounds_with_a_loss,
        agents,
        tmp_path,
        topology or RandomMatching(),
        hurt,
        STEPS,
        TIMEOUT_SECONDS,
    )
    others = [process for k, process in enumerate(processes) if k != hurt.agent]
    for process in others:
        process.join(60)
    seconds = time.monotonic() - started
    assert not any(process.is_alive() for process in others)
    results = harness.results_of(processes, tmp_path, 0.1)
    assert all(not process.is_alive() for process in processes)
    return results, seconds


def assert_they_merged_without(hurt, results, seconds):
    alive = [k for k in range(len(results)) if k != hurt.agent]
    assert results[hurt.agent] is None
    assert all(results[k]["agents"] == alive for k in alive)
    assert [d["agent"] for d in results[alive[0]]["dropped"]] == [hurt.agent]
    assert results[alive[0]]["dropped"][0]["step"] == hurt.at_step
    mean = torch.stack([results[k]["local"] for k in alive]).mean(0)
    for k in alive:
        merged = results[k]["merged"]
        assert bool(torch.isfinite(merged).all())
        # The last bias is frozen, and takes no part.
        torch.testing.assert_close(merged[:-3], mean[:-3], rtol=0, atol=1e-6)
    # Starting, at most three timeouts for the loss, and the rest of the run.
    assert seconds < 25


QUICK = {
    "killed in the middle of gossip": Hurt(2, "kill", "middle", 3),
    "the first one stopped before a round": Hurt(0, "stop", "before", 3),
    "poisoned at the merge": Hurt(1, "NaN", "before", STEPS),
}


@pytest.mark.parametrize("name", QUICK)
def test_a_lost_agent_does_not_take_the_others_down(name, tmp_path):
    hurt = QUICK[name]
    assert_they_merged_without(hurt, *survivors_of(tmp_path, hurt))


MOMENTS = [("before", 3), ("middle", 3), ("before", STEPS), ("middle", STEPS)]
MATRIX = [
    (how, when, step, agent)
    for how, (when, step), agent in itertools.product(
        ["kill", "stop", "NaN", "raise", "slow"], MOMENTS, [0, 3]
    )
    # What is sent was copied before, so poison in the middle shows only in the next round.
    if (how, when) != ("NaN", "middle")
]
TOPOLOGIES = [RandomMatching(), Complete(), RandomPull(2)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "place", range(len(MATRIX)), ids=lambda place: "-".join(map(str, MATRIX[place]))
)
def test_every_loss_at_every_moment(place, tmp_path):
    how, when, step, agent = MATRIX[place]
    hurt = Hurt(agent, how, when, step)
    topology = TOPOLOGIES[place % len(TOPOLOGIES)]
    assert_they_merged_without(hurt, *survivors_of(tmp_path, hurt, topology))
