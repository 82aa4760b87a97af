"""Gossip beside training steps: against DDP's step, in the background, and with a straggler.

usage: python benchmarks/decentralized_steps.py ddp [--agents 4] [--rounds 30]
       python benchmarks/decentralized_steps.py overlap [--agents 4] [--rounds 9] [--mbit 60]
       python benchmarks/decentralized_steps.py straggler [--agents 4]

``ddp`` alternates blocks of 20 steps of DDP, of a gossip round after every step, and of such a
round that tolerates lost agents, with 301k parameters. ``overlap`` limits the loopback as
``decentralized.py`` does. A step computes the gradients of a network with 26k parameters and then
sleeps for 10 ms, as a step on an accelerator leaves the processor free; a round follows every 10
steps. ``straggler`` runs Trainers. The last of them sleeps for 60 ms in each step, and the steps of
the first are measured between rounds.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from decentralized import LR, MOMENTUM, Digit, digits, in_slow_network, network
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch import Callback, Trainer
from paired import median_ratio
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

from lightning_plugins.strategies import DecentralizedStrategy
from lightning_plugins.strategies.agent import Agent
from lightning_plugins.strategies.communication import Communication
from lightning_plugins.strategies.fixed_peers import FixedPeers
from lightning_plugins.strategies.peers import Peers
from lightning_plugins.strategies.process_per_agent import OnPeerFailure
from lightning_plugins.strategies.schedule import Schedule
from lightning_plugins.strategies.topologies import RandomMatching

BLOCK, EVERY, STEPS = 20, 20, 120


def peers_of(on_peer_failure: OnPeerFailure) -> Peers:
    """Connect as the strategy does."""
    strategy = DecentralizedStrategy(on_peer_failure=on_peer_failure, timeout_seconds=120)
    strategy.cluster_environment = LightningEnvironment()
    strategy.parallel_devices = [torch.device("cpu")] * dist.get_world_size()
    strategy.set_world_ranks()
    peers = strategy._connected_peers("gloo")
    if isinstance(peers, FixedPeers) and peers.meetings is not None:
        peers.meetings.details = dict  # there is no module whose logged values it could name
    return peers


def wide_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(64, 490), nn.ReLU(), nn.Linear(490, 490), nn.ReLU(), nn.Linear(490, 58)
    )


def against_ddp(rounds: int) -> None:
    images, labels = torch.randn(32, 64), torch.randint(58, (32,))
    every_step = Communication(RandomMatching(), Schedule())
    agents = {
        "gossip": Agent(wide_network(), peers_of("raise"), every_step),
        "gossip that tolerates faults": Agent(wide_network(), peers_of("drop"), every_step),
    }
    plain = wide_network()
    ddp = DistributedDataParallel(plain)
    taken = Counter[str]()

    def block(name: str) -> float:
        agent = agents.get(name)
        model = ddp if agent is None else agent.module
        optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
        dist.barrier()
        started = time.perf_counter()
        for _ in range(BLOCK):
            optimizer.zero_grad()
            cross_entropy(model(images), labels).backward()
            optimizer.step()
            if agent is not None:
                taken[name] += 1
                agent.after_step(taken[name], float("inf"))
        dist.barrier()
        return (time.perf_counter() - started) / BLOCK

    repetitions = [{name: block(name) for name in ("DDP", *agents)} for _ in range(rounds + 2)][2:]
    if dist.get_rank() == 0:
        parameters = sum(p.numel() for p in plain.parameters())
        ms = {
            name: 1e3 * statistics.median(one[name] for one in repetitions)
            for name in repetitions[0]
        }
        print(
            f"{dist.get_world_size()} agents, {parameters} parameters, a round after every step: "
            f"DDP {ms['DDP']:.2f} ms a step (medians)"
        )
        for name in agents:
            ratio = median_ratio([one[name] / one["DDP"] for one in repetitions])
            print(f"{name}: {ms[name]:.2f} ms, of DDP's: {ratio}")


def in_background(repeats: int) -> None:
    peers = peers_of("raise")
    data = digits().train_dataset

    def seconds(schedule: Schedule, overlap: bool) -> float:
        net = network()
        optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM)
        agent = Agent(net, peers, Communication(RandomMatching(), schedule), overlap=overlap)
        dist.barrier()
        started = time.perf_counter()
        for step in range(STEPS):
            chosen = torch.randint(len(data.labels), (32,))
            optimizer.zero_grad()
            cross_entropy(net(data.images[chosen]), data.labels[chosen]).backward()
            optimizer.step()
            time.sleep(0.01)
            agent.after_step(step + 1, float("inf"))
        agent.finish_gossip()
        dist.barrier()
        return time.perf_counter() - started

    often = Schedule(every_n_steps=EVERY // 2)
    modes = {"none": (Schedule(rate=0.0), False), "synchronous": (often, False)}
    modes["overlap"] = (often, True)
    repetitions = [
        {name: seconds(*mode) for name, mode in modes.items()} for _ in range(repeats + 1)
    ][1:]
    if dist.get_rank() == 0:
        medians = {name: statistics.median(one[name] for one in repetitions) for name in modes}
        ratio = median_ratio(
            [(t["overlap"] - t["none"]) / (t["synchronous"] - t["none"]) for t in repetitions]
        )
        print(
            f"{STEPS} steps, {2 * STEPS // EVERY} rounds: {medians['none']:.2f} s without gossip, "
            f"{medians['synchronous']:.2f} s with it, {medians['overlap']:.2f} s with it in the "
            f"background (medians); overlap costs, of synchronous gossip: {ratio}"
        )


class Straggler(Callback):
    """Sleeps in the last agent, and keeps the time of each step that no round follows."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.steps: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.started = time.perf_counter()
        if trainer.global_rank == trainer.world_size - 1:
            time.sleep(self.seconds)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step % EVERY:
            self.steps.append(time.perf_counter() - self.started)


def with_a_straggler(seconds: float) -> None:
    strategy = DecentralizedStrategy(data="user")
    strategy.communication = Communication(RandomMatching(), Schedule(every_n_steps=EVERY))
    straggler = Straggler(seconds)
    train = digits().train_dataset
    loader = DataLoader(TensorDataset(train.images, train.labels), 32, shuffle=True)
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = Trainer(
        accelerator="cpu",
        devices=int(os.environ["WORLD_SIZE"]),
        strategy=strategy,
        max_steps=6 * EVERY,
        callbacks=[straggler],
        default_root_dir=tempfile.gettempdir(),
        **dict.fromkeys(quiet, False),
    )
    started = time.perf_counter()
    trainer.fit(Digit(), loader)
    if trainer.global_rank == 0:
        total = time.perf_counter() - started
        step = statistics.median(straggler.steps)
        print(
            f"last agent sleeps {1e3 * seconds:.0f} ms: {1e3 * step:.3f} ms a step of the first "
            f"(median), {total:.1f} s in all"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("ddp", "overlap", "straggler"))
    parser.add_argument("--agents", type=int, default=4)
    parser.add_argument("--rounds", type=int, help="repetitions of ddp (30) and overlap (9)")
    parser.add_argument("--mbit", type=float, default=60.0)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if "LOCAL_RANK" not in os.environ:
        for seconds in (0.0, 0.06, 0.0, 0.06) if arguments.what == "straggler" else (0.0,):
            start(arguments, seconds)
        return
    if arguments.what == "straggler":
        with_a_straggler(arguments.seconds)
        return
    # The supervisor gives each agent a port of its own.
    os.environ["MASTER_PORT"] = os.environ["BENCHMARK_PORT"]
    port, rank, agents = (
        int(os.environ["MASTER_PORT"]),
        int(os.environ["LOCAL_RANK"]),
        arguments.agents,
    )
    timeout = timedelta(seconds=120)
    store = dist.TCPStore(
        "127.0.0.1", port, agents, rank == 0, timeout, multi_tenant=True, wait_for_workers=False
    )
    dist.init_process_group("gloo", store=store, rank=rank, world_size=agents, timeout=timeout)
    if arguments.what == "ddp":
        against_ddp(arguments.rounds or 30)
    else:
        in_background(arguments.rounds or 9)
    dist.barrier()
    dist.destroy_process_group()


def start(arguments: argparse.Namespace, seconds: float) -> None:
    command = [*sys.argv, f"--seconds={seconds}"]
    if arguments.what == "straggler":
        options = ["--standalone", f"--nproc-per-node={arguments.agents}"]
        command = [sys.executable, "-m", "torch.distributed.run", *options, *command]
    else:
        supervisor = "lightning_plugins.strategies.supervisor"
        command = [sys.executable, "-m", supervisor, str(arguments.agents), *command]
    if arguments.what == "overlap":
        command, is_limited = in_slow_network(command, arguments.mbit)
        if not is_limited:
            raise SystemExit("overlap limits the loopback, which requires root on Linux")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        environment["BENCHMARK_PORT"] = str(free.getsockname()[1])
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if run.returncode or not run.stdout.strip():
        raise SystemExit(run.stderr[-2000:])
    print(run.stdout.strip(), flush=True)


if __name__ == "__main__":
    main()
