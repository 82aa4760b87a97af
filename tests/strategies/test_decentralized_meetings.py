"""Agents wait for each other only at meetings, and report where they disagree."""

import os
import subprocess
import sys
import time

import decentralized_meetings as harness
import pytest
import torch
from decentralized_agents import run_agents
from decentralized_trainers import free_port


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("meetings")
    names = list(harness.cases(folder))
    arguments = (free_port(), str(folder), names)
    results = run_agents(harness.run_cases, 2, folder, *arguments, timeout_seconds=240)
    assert None not in results
    return lambda case: [result[case] for result in results]


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("logs more", "logged values only on agent 1: val/extra"),
        ("logs other", "mean of 1 values of float64"),
        ("skips a step", "merge after step 7"),
        ("uneven data", "gossip after step 5"),
        ("stops", "gossip after step 5"),
    ],
)
def test_a_disagreement_is_an_error_that_names_both_operations_within_seconds(ran, case, expected):
    errors = [result["error"] for result in ran(case)]
    assert all("DisagreementError" in error for error in errors), errors
    assert any(expected in error for error in errors), errors
    assert any("agent 0" in error and "agent 1" in error for error in errors), errors
    assert all(result["waited"] < 20 for result in ran(case))


def test_the_error_of_a_failed_agent_reaches_the_others(ran):
    first, second = ran("raises")
    assert second["error"] == "KeyError: 'raised by a test'"
    assert "agent 1 raised KeyError: 'raised by a test'" in first["error"]
    assert first["waited"] < 20


def test_a_slow_agent_does_not_delay_the_others_between_meetings(ran):
    first, second = ran("slow")
    assert second["seconds"] > 18 * 0.06
    assert first["seconds"] < 0.5 * second["seconds"]


def test_users_calls_of_torch_distributed_concern_their_own_agent(ran):
    first, second = ran("torch.distributed")
    assert second["world_size"] == 1
    # A DistributedSampler of one process is divided among agents, like any other order.
    assert len(first["seen"]) == len(second["seen"]) == 128
    assert not set(first["seen"]) & set(second["seen"])


def test_a_terminated_run_stops_all_agents_at_one_step_with_its_own_exit_code(ran):
    first, second = ran("terminated")
    assert first["code"] == second["code"] == 143
    assert first["steps"] == second["steps"] < 20


def test_a_terminated_run_resumes_exactly(ran):
    for resumed, uninterrupted in zip(ran("resumed"), ran("uninterrupted"), strict=True):
        assert resumed["steps"] == 20
        assert torch.equal(resumed["weights"], uninterrupted["weights"])


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_the_recipe_waits_for_a_process_that_starts_90_seconds_late(tmp_path):
    """Its timeout of transfers is 60 seconds."""
    fit = "-m lightning_plugins fit --config decentralized/digits --trainer.max_epochs 4"
    command = [sys.executable, *fit.split(), "--trainer.callbacks.server", "false"]
    usual = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    usual |= {"NODE_RANK": "0", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    processes = []
    try:
        for rank, seconds in enumerate((0, 0, 0, 90)):
            time.sleep(seconds)
            with (tmp_path / f"{rank}.txt").open("w") as output:
                environment = {**usual, "LOCAL_RANK": str(rank)}
                processes.append(
                    subprocess.Popen(
                        command, cwd=tmp_path, env=environment, stdout=output, stderr=output
                    )
                )
        deadline = time.monotonic() + 240
        codes = [p.wait(max(1, deadline - time.monotonic())) for p in processes]
    finally:
        for process in processes:
            process.kill()
    printed = (tmp_path / "0.txt").read_text()
    assert codes == [0, 0, 0, 0], printed[-3000:]
    assert "3 of 4 agents have connected; waiting for [3]" in printed
    assert "merges: 1" in printed, printed[-3000:]
