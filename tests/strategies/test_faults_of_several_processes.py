"""Agents of two processes that lose one: in each moment of a run, and in each way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import faults_of_several_processes as harness
import program_stopped_process as program
import pytest
import torch

pytestmark = pytest.mark.slow


def has_ended(pid):
    """Whether a process is gone, or a zombie that its fork server has not collected yet."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("inside", ["ddp", "fsdp"])
@pytest.mark.parametrize("moment", harness.MOMENTS)
@pytest.mark.parametrize("kind", harness.KINDS)
def test_a_failing_process_ends_its_agent_and_no_other(kind, moment, inside, tmp_path):
    supervisor = harness.ForkedSupervisor(tmp_path, kind, moment, inside)
    code = supervisor.run()
    ended = time.monotonic()
    pids = [process.pid for process in supervisor.processes]
    while not all(has_ended(pid) for pid in pids) and time.monotonic() < ended + 10:
        time.sleep(0.1)
    assert all(has_ended(pid) for pid in pids), os.popen("ps -ef").read()
    results = {
        rank: torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for rank in range(4)
        if (tmp_path / f"{rank}.pt").exists()
    }
    assert kind == "nan" or (tmp_path / "failed").exists()
    if kind == "preempt":
        assert (code, set(results)) in [(143, set()), (0, {0, 1, 2, 3})]
        saved = torch.load(tmp_path / "preempted.ckpt", weights_only=True) if code else None
        assert saved is None or saved["decentralized"]["agents"] == [0, 1]
    else:
        assert code == 0
        remaining = {0, 1, 2, 3} if kind == "slow" else {0, 1}
        assert set(results) == remaining
        for result in results.values():
            assert result["global_step"] == 12
            assert result["dropped"] == ([] if kind == "slow" else [1])
    for result in results.values():
        assert bool(result["weights"].isfinite().all())
        assert torch.equal(result["weights"], results[0]["weights"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_no_process_outlives_a_run_that_lightnings_launcher_started(number, tmp_path):
    path = os.pathsep.join([str(Path(program.__file__).parent), os.environ.get("PYTHONPATH", "")])
    first = subprocess.Popen(
        [sys.executable, program.__file__, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    pids = []
    try:
        until = time.monotonic() + 100
        while len(list(tmp_path.glob("*.pid"))) < 4 and time.monotonic() < until:
            assert first.poll() is None
            time.sleep(0.1)
        pids = [int((tmp_path / f"{rank}.pid").read_text()) for rank in range(4)]
        os.kill(pids[3], number)
        assert first.wait(40) != 0
        ended = time.monotonic()
        while not all(has_ended(pid) for pid in pids) and time.monotonic() < ended + 10:
            time.sleep(0.1)
        assert [rank for rank, pid in enumerate(pids) if not has_ended(pid)] == []
    finally:
        for pid in pids:
            if not has_ended(pid):
                os.kill(pid, signal.SIGKILL)
        first.kill()
        first.wait()
