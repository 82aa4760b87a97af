"""Faults in one of four real processes: the others agree to drop it and merge without it."""

import itertools
import time

import decentralized_agents as harness
import pytest
import torch
from decentralized_agents import Fault

from lightning_plugins.strategies.topologies import Complete, RandomMatching, RandomPull

STEPS, TIMEOUT_SECONDS = 6, 2.0


def run_with_fault(tmp_path, fault, topology=None, agents=4):
    """Run agents with a fault in one; return their results and the duration in seconds."""
    started = time.monotonic()
    processes = harness.start_agents(
        harness.rounds_with_a_fault,
        agents,
        tmp_path,
        topology or RandomMatching(),
        fault,
        STEPS,
        TIMEOUT_SECONDS,
    )
    others = [process for k, process in enumerate(processes) if k != fault.agent]
    for process in others:
        process.join(60)
    seconds = time.monotonic() - started
    assert not any(process.is_alive() for process in others)
    results = harness.results_of(processes, tmp_path, 0.1)
    assert all(not process.is_alive() for process in processes)
    return results, seconds


def assert_others_merged(fault, results, seconds):
    remaining = [k for k in range(len(results)) if k != fault.agent]
    assert results[fault.agent] is None
    assert all(results[k]["agents"] == remaining for k in remaining)
    assert [d["agent"] for d in results[remaining[0]]["dropped"]] == [fault.agent]
    assert results[remaining[0]]["dropped"][0]["step"] == fault.at_step
    mean = torch.stack([results[k]["local"] for k in remaining]).mean(0)
    for k in remaining:
        merged = results[k]["merged"]
        assert bool(torch.isfinite(merged).all())
        # The last bias is frozen and not mixed.
        torch.testing.assert_close(merged[:-3], mean[:-3], rtol=0, atol=1e-6)
    # Start-up, at most three timeouts for the fault, and the rest of the run.
    assert seconds < 25


QUICK = {
    "killed during gossip": Fault(2, "kill", "middle", 3),
    "first agent stopped before a round": Fault(0, "stop", "before", 3),
    "NaN at the merge": Fault(1, "NaN", "before", STEPS),
}


@pytest.mark.parametrize("name", QUICK)
def test_the_remaining_agents_merge_without_a_failed_one(name, tmp_path):
    fault = QUICK[name]
    assert_others_merged(fault, *run_with_fault(tmp_path, fault))


MOMENTS = [("before", 3), ("middle", 3), ("before", STEPS), ("middle", STEPS)]
MATRIX = [
    (how, when, step, agent)
    for how, (when, step), agent in itertools.product(
        ["kill", "stop", "NaN", "raise", "slow"], MOMENTS, [0, 3]
    )
    # Tensors to send are already copied, so NaN during a transfer has no effect until the next.
    if (how, when) != ("NaN", "middle")
]
TOPOLOGIES = [RandomMatching(), Complete(), RandomPull(2)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "place", range(len(MATRIX)), ids=lambda place: "-".join(map(str, MATRIX[place]))
)
def test_every_kind_of_failure_at_every_moment(place, tmp_path):
    how, when, step, agent = MATRIX[place]
    fault = Fault(agent, how, when, step)
    topology = TOPOLOGIES[place % len(TOPOLOGIES)]
    assert_others_merged(fault, *run_with_fault(tmp_path, fault, topology))
