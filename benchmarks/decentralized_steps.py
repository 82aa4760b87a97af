"""Gossip beside training steps: against DDP's step, in the background, and with a straggler.

usage: python benchmarks/decentralized_steps.py ddp [--agents 4] [--rounds 30]
       python benchmarks/decentralized_steps.py overlap [--agents 4] [--mbit 60]
       python benchmarks/decentralized_steps.py straggler [--agents 4]

``ddp`` alternates blocks of 20 steps of DDP and of a gossip round after every step, with 301k
parameters. ``overlap`` limits the loopback as ``decentralized.py`` does. A step computes the
gradients of a network with 26k parameters and then sleeps for 10 ms, as a step on an accelerator
leaves the processor free; a round follows every 10 steps. ``straggler`` runs Trainers. The last of
them sleeps for 60 ms in each step, and the steps of the first are measured between rounds.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from decentralized import LR, MOMENTUM, Digit, digits, in_slow_network, network
from lightning.pytorch import Callback, Trainer
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

from lightning_plugins.strategies import DecentralizedStrategy
from lightning_plugins.strategies.agent import Agent
from lightning_plugins.strategies.communication import Communication
from lightning_plugins.strategies.fixed_peers import FixedPeers
from lightning_plugins.strategies.ledger import CommLedger
from lightning_plugins.strategies.meetings import Meetings, gloo_group
from lightning_plugins.strategies.schedule import Schedule
from lightning_plugins.strategies.topologies import RandomMatching

BLOCK, EVERY, STEPS = 20, 20, 120


def peers_of(store: dist.Store) -> FixedPeers:
    """Connect as the strategy does: a group of its own, with comparison of operations."""
    agent, agents = dist.get_rank(), dist.get_world_size()
    timeout = timedelta(seconds=120)
    own = dist.PrefixStore("agents", store)
    meetings = Meetings(agent, own, timeout)
    group = gloo_group(own, agent, agents, timeout)
    return FixedPeers(agent, CommLedger(), timeout, group, meetings)


def wide_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(64, 490), nn.ReLU(), nn.Linear(490, 490), nn.ReLU(), nn.Linear(490, 58)
    )


def against_ddp(store: dist.Store, rounds: int) -> None:
    images, labels = torch.randn(32, 64), torch.randint(58, (32,))
    gossip, plain = wide_network(), wide_network()
    ddp = DistributedDataParallel(plain)
    agent = Agent(gossip, peers_of(store), Communication(RandomMatching(), Schedule()))
    taken = 0

    def block(model: nn.Module, gossips: bool) -> float:
        nonlocal taken
        optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
        dist.barrier()
        started = time.perf_counter()
        for _ in range(BLOCK):
            optimizer.zero_grad()
            cross_entropy(model(images), labels).backward()
            optimizer.step()
            if gossips:
                taken += 1
                agent.after_step(taken, float("inf"))
        dist.barrier()
        return (time.perf_counter() - started) / BLOCK

    pairs = [(block(ddp, False), block(gossip, True)) for _ in range(rounds + 2)][2:]
    if dist.get_rank() == 0:
        ratios = sorted(own / other for other, own in pairs)
        parameters = sum(p.numel() for p in gossip.parameters())
        print(
            f"{dist.get_world_size()} agents, {parameters} parameters, a round after every step: "
            f"DDP {1e3 * statistics.median(a for a, _ in pairs):.2f} ms, gossip "
            f"{1e3 * statistics.median(b for _, b in pairs):.2f} ms, ratio "
            f"{statistics.median(ratios):.3f} [{ratios[len(ratios) // 4]:.3f}, "
            f"{ratios[3 * len(ratios) // 4]:.3f}] (median and quartiles of {len(pairs)} pairs)"
        )


def in_background(store: dist.Store, repeats: int) -> None:
    peers = peers_of(store)
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
    turns = [{name: seconds(*mode) for name, mode in modes.items()} for _ in range(repeats + 1)]
    runs = {name: [turn[name] for turn in turns[1:]] for name in modes}
    if dist.get_rank() == 0:
        medians = {name: statistics.median(values) for name, values in runs.items()}
        cost = {name: medians[name] - medians["none"] for name in ("synchronous", "overlap")}
        print(
            f"{STEPS} steps, {2 * STEPS // EVERY} rounds: {medians['none']:.2f} s without gossip, "
            f"{medians['synchronous']:.2f} s with it, {medians['overlap']:.2f} s with it in the "
            f"background: overlap costs {cost['overlap'] / cost['synchronous']:.2f} of "
            f"synchronous gossip (medians of {repeats} runs)"
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
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--mbit", type=float, default=60.0)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if "RANK" not in os.environ:
        for seconds in (0.0, 0.06, 0.0, 0.06) if arguments.what == "straggler" else (0.0,):
            start(arguments, seconds)
        return
    if arguments.what == "straggler":
        with_a_straggler(arguments.seconds)
        return
    dist.init_process_group("gloo")
    store = dist.distributed_c10d._get_default_store()
    if arguments.what == "ddp":
        against_ddp(store, arguments.rounds)
    else:
        in_background(store, 5)
    dist.destroy_process_group()


def start(arguments: argparse.Namespace, seconds: float) -> None:
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *(f"--nproc-per-node={arguments.agents}", *sys.argv, f"--seconds={seconds}"),
    ]
    if arguments.what == "overlap":
        command, is_limited = in_slow_network(command, arguments.mbit)
        if not is_limited:
            raise SystemExit("overlap limits the loopback, which requires root on Linux")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(run.stderr[-2000:])
    print(run.stdout.strip(), flush=True)


if __name__ == "__main__":
    main()
