"""Runs that continue when an agent fails, with Trainers and with the supervisor."""

import os
import signal
import subprocess
import sys
import time

import decentralized_trainers as harness
import pytest
import torch
from lightning.pytorch import Callback

from lightning_plugins.strategies.communication import Communication
from lightning_plugins.strategies.schedule import Schedule
from lightning_plugins.strategies.supervisor import Supervisor, main
from lightning_plugins.strategies.topologies import RandomMatching


class KillAtCheckpoint(Callback):
    """Kills one agent while a checkpoint is written."""

    def __init__(self, agent, step, how=signal.SIGKILL):
        self.agent, self.step, self.how = agent, step, how

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        if trainer.global_rank == self.agent and trainer.global_step == self.step:
            os.kill(os.getpid(), self.how)


def fit_with_a_failure(tmp_path, callback, timeout_seconds):
    case = {
        "strategy": {"on_peer_failure": "drop", "timeout_seconds": timeout_seconds},
        "communication": Communication(RandomMatching(), Schedule(every_n_steps=2)),
        "callbacks": [callback],
        "checkpoint": {"save_last": True, "every_n_train_steps": 4},
    }
    processes = harness.start_trainers(4, tmp_path, {"run": case})
    for k, process in enumerate(processes):
        if k != callback.agent:
            process.join(60)
    return harness.results_of(processes, tmp_path, 0.1)


@pytest.mark.parametrize("agent", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)]
)
def test_a_run_continues_when_an_agent_fails_during_a_checkpoint(agent, how, tmp_path):
    results = fit_with_a_failure(tmp_path, KillAtCheckpoint(agent, 8, how), timeout_seconds=2)
    remaining = [k for k in range(4) if k != agent]
    assert results[agent] is None
    ends = [results[k]["run"] for k in remaining]
    assert all(end["global_step"] == 12 for end in ends)
    assert all(torch.equal(end["weights"], ends[0]["weights"]) for end in ends)
    assert [lost["agent"] for lost in ends[0]["ledger"]["dropped"]] == [agent]
    # The first remaining agent wrote the last checkpoint, which loads.
    last = tmp_path / "run" / "last.ckpt"
    assert torch.equal(
        harness.flat(harness.Classifier.load_from_checkpoint(last)), ends[0]["weights"]
    )
    label = torch.load(last, weights_only=True)["decentralized"]
    assert label["agents"] == remaining
    assert len(list((tmp_path / "run" / "last.ckpt.agents").iterdir())) == 3
    # Metrics are means over the remaining agents.
    assert ends[0]["metrics"]["val/agent"] == pytest.approx(sum(remaining) / 3)
    assert len({end["metrics"]["val/accuracy"] for end in ends}) == 1


AGENT = """
import os, sys, time
k = int(os.environ["LOCAL_RANK"])
# One write: with PYTHONUNBUFFERED the output of several agents would be interleaved.
os.write(1, f"agent {{k}} {{os.environ['LIGHTNING_PLUGINS_STORE']}}\\n".encode())
time.sleep({sleeps}[k])
sys.exit({codes}[k])
"""


@pytest.mark.parametrize(
    ("codes", "sleeps", "expected"),
    [([0, 0, 0], [0, 0, 0], 0), ([0, 3, 0], [0.5, 0, 0.5], 0), ([1, 1, 1], [0, 0, 0], 1)],
)
def test_the_supervisor_exits_with_zero_if_at_least_one_agent_does(codes, sleeps, expected, capfd):
    command = [sys.executable, "-c", AGENT.format(codes=codes, sleeps=sleeps)]
    supervisor = Supervisor(command, 3)
    assert supervisor.run() == expected
    assert all(agent.poll() is not None for agent in supervisor.processes)
    output = capfd.readouterr()
    assert sorted(line.split()[1] for line in output.out.splitlines()) == ["0", "1", "2"]
    assert ("agent 1 ended with exit code 3" in output.err) == (3 in codes)


def test_the_supervisor_kills_agents_that_outlast_the_grace_period(capfd):
    command = [sys.executable, "-c", AGENT.format(codes=[0, 0], sleeps=[0, 600])]
    supervisor = Supervisor(command, 2, grace_seconds=0.5)
    started = time.monotonic()
    assert supervisor.run() == 0
    assert time.monotonic() - started < 10
    assert supervisor.processes[1].returncode == -signal.SIGKILL
    assert "agents that completed the run, of 2: 0" in capfd.readouterr().err


def test_the_supervisor_kills_an_agents_other_processes_when_one_fails(capfd):
    command = [sys.executable, "-c", AGENT.format(codes=[0, 0, 3, 0], sleeps=[1, 1, 0, 600])]
    supervisor = Supervisor(command, 2, processes_per_agent=2)
    started = time.monotonic()
    assert supervisor.run() == 0
    assert time.monotonic() - started < 8
    assert [p.returncode for p in supervisor.processes] == [0, 0, 3, -signal.SIGKILL]
    assert "agent 1 ended with exit code 3" in capfd.readouterr().err


def test_a_command_without_agents_prints_the_usage(capsys):
    assert main(["-m", "x"]) == 2
    assert "supervisor AGENTS (SCRIPT | -m MODULE)" in capsys.readouterr().err
    with pytest.raises(ValueError, match="0 agents: expected at least 1"):
        main(["0", "script.py"])


FIT = [
    *("-m", "lightning_plugins", "fit", "--config", "decentralized/digits"),
    *("--trainer.max_epochs=4", "--trainer.check_val_every_n_epoch=2"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
]
LAUNCHERS = {
    "Lightning": [sys.executable],
    "torchrun": [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4")
    ],
    "supervisor": [sys.executable, "-m", "lightning_plugins.strategies.supervisor", "4"],
}


def run(command, folder):
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=200, check=False
    )


@pytest.mark.slow
@pytest.mark.scale(plugin="DecentralizedStrategy", strategy="decentralized")
@pytest.mark.scale(plugin="DecentralizedSummary", strategy="decentralized")
@pytest.mark.parametrize(
    "launcher",
    ["torchrun", "Lightning", "supervisor"],
)
def test_the_recipe_runs_under_each_launcher(launcher, tmp_path):
    options = []
    if launcher == "supervisor":
        options = [
            "--trainer.strategy.init_args.on_peer_failure=drop",
            "--trainer.callbacks.server=false",
        ]
    answer = run([*LAUNCHERS[launcher], *FIT, *options], tmp_path)
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert "4 agents, 80 steps each: val/accuracy" in answer.stdout
    assert "DDP would send" in answer.stdout
    assert ("server, averaging each step" in answer.stdout) == (launcher != "supervisor")
    (last,) = tmp_path.rglob("last.ckpt")
    assert torch.load(last, weights_only=True)["decentralized"]["agents"] == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_run_starts_although_one_agent_joins_90_seconds_late(tmp_path):
    options = [
        "--trainer.callbacks.server=false",
        "--trainer.strategy.init_args.timeout_seconds=30",
    ]
    port, agents = harness.free_port(), []
    try:
        for agent in (0, 1, 2, 3):
            own = {"LOCAL_RANK": str(agent), "NODE_RANK": "0"}
            own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            late = ["-c", "import sys, time, runpy; time.sleep(90); sys.argv = sys.argv[1:]; "]
            late[1] += "runpy.run_module('lightning_plugins', run_name='__main__', alter_sys=True)"
            start = [*late, "lightning_plugins", *FIT[2:]] if agent == 3 else FIT
            with (tmp_path / f"{agent}.log").open("w") as log:
                command = [sys.executable, *start, *options]
                environment = {**os.environ, **own}
                agents.append(
                    subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log)
                )
        codes = [agent.wait(400) for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
    first = (tmp_path / "0.log").read_text()
    assert codes == [0, 0, 0, 0], first[-3000:]
    assert "3 of 4 agents have connected; waiting for [3]" in first
    assert "4 agents, 80 steps each: val/accuracy" in first


@pytest.mark.slow
def test_the_strategy_string_starts_agents_with_lightnings_launcher(tmp_path):
    options = [
        *("--config", "image/digits", "--trainer.strategy=decentralized", "--trainer.devices=2"),
        *("--trainer.max_epochs=2", "--trainer.enable_progress_bar=false"),
    ]
    answer = run([sys.executable, "-m", "lightning_plugins", "fit", *options], tmp_path)
    assert answer.returncode == 0, answer.stderr[-3000:]
    (last,) = tmp_path.rglob("last.ckpt")
    label = torch.load(last, weights_only=True)["decentralized"]
    assert (label["agents"], label["weights"]) == ([0, 1], "merged")
    assert list(tmp_path.rglob("communication.json"))


def test_the_supervisor_can_host_only_the_list_of_remaining_agents(tmp_path):
    port = harness.free_port()
    host = subprocess.Popen(
        [sys.executable, "-m", "lightning_plugins.strategies.supervisor", "host", str(port)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert f"port {port}" in host.stdout.readline()
        store = torch.distributed.TCPStore("127.0.0.1", port, is_master=False)
        assert store.compare_set("decision", "", "first") == b"first"
        assert store.compare_set("decision", "", "second") == b"first"
    finally:
        host.send_signal(signal.SIGTERM)
        assert host.wait(10) == 0
