"""Costs of decentralized training: time on a slow network, and simulation on one machine.

usage: python benchmarks/decentralized.py network [--mbit 50] [--agents 4] [--alpha 1.0]
       python benchmarks/decentralized.py wire [--seeds 5] [--agents 4] [--alpha 1.0]
       python benchmarks/decentralized.py simulation [--pairs 8] [--steps 60]

``network`` limits the loopback of a network namespace with a token bucket (requires root on Linux).
Without the permission, each transfer sleeps for the time that its bytes would take. The target is
95 % of the accuracy of averaging after each step, which is measured first, without a limit.
``wire`` trains simulated agents with pairs every 20 steps and a merge, once with float32 and once
with int8 for each seed of initial weights, data and pairs.
"""

import argparse
import contextlib
import functools
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from lightning import __version__ as lightning_version
from lightning.pytorch import LightningModule, Trainer
from paired import paired_ratio
from scipy import stats
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

from lightning_plugins.datamodules import DigitsDataModule, DirichletPartition
from lightning_plugins.nn.image import build_image_network
from lightning_plugins.strategies import SimulatedDecentralizedStrategy, simulate
from lightning_plugins.strategies.agent import Agent
from lightning_plugins.strategies.communication import Communication
from lightning_plugins.strategies.fixed_peers import FixedPeers
from lightning_plugins.strategies.ledger import CommLedger, ring_all_reduce_bytes
from lightning_plugins.strategies.schedule import Schedule
from lightning_plugins.strategies.topologies import Complete, RandomMatching
from lightning_plugins.strategies.wire import WireName

BATCH, STEPS, EVERY, LR, MOMENTUM, SEED = 32, 1000, 20, 0.02, 0.9, 0
METHODS = ("DDP", "PostLocalSGD", "decentralized")


def network(seed: int = SEED) -> nn.Module:
    torch.manual_seed(seed)
    return build_image_network("mlp", num_classes=10, in_channels=1, image_size=8)


@functools.cache
def digits() -> DigitsDataModule:
    data = DigitsDataModule(seed=SEED)
    data.setup()
    return data


@functools.lru_cache(maxsize=64)
def share_of(alpha: float, agent: int, agents: int, epoch: int) -> torch.Tensor:
    """Return shuffled sample indices of one agent's epoch, which is one round."""
    partition = DirichletPartition(alpha, EVERY * BATCH, seed=SEED)
    indices = partition.indices(digits().train_dataset.labels, agent, agents, epoch)
    generator = torch.Generator().manual_seed(epoch * agents + agent)
    return indices[torch.randperm(len(indices), generator=generator)]


def batch_of(alpha: float, agent: int, agents: int, step: int) -> tuple:
    epoch, place = divmod(step, EVERY)
    chosen = share_of(alpha, agent, agents, epoch)[place * BATCH : (place + 1) * BATCH]
    train = digits().train_dataset
    return train.images[chosen], train.labels[chosen]


def accuracy(net: nn.Module, data: DigitsDataModule) -> float:
    with torch.no_grad():
        logits = net.eval()(data.test_dataset.images)
    net.train()
    return float((logits.argmax(1) == data.test_dataset.labels).float().mean())


def server_accuracy(agents: int, alpha: float) -> float:
    data, net = digits(), network().eval()

    def loss_fn(parameters: dict, batch: tuple) -> torch.Tensor:
        return cross_entropy(functional_call(net, parameters, (batch[0],)), batch[1])

    def batches(step: int) -> tuple:
        parts = [batch_of(alpha, agent, agents, step) for agent in range(agents)]
        return tuple(torch.stack(part) for part in zip(*parts, strict=True))

    sgd = partial(torch.optim.SGD, lr=LR, momentum=MOMENTUM)
    every_step = Communication(Complete(), Schedule())
    end = simulate(loss_fn, dict(net.named_parameters()), batches, sgd, every_step, agents, STEPS)
    with torch.no_grad():
        logits = functional_call(net, end.merged, (data.test_dataset.images,))
    return float((logits.argmax(1) == data.test_dataset.labels).float().mean())


def train_until(method: str, target: float, alpha: float, emulated_mbit: float) -> None:
    """Train one agent until the mean of all agents reaches ``target``; run by torchrun."""
    dist.init_process_group("gloo")
    agent, agents = dist.get_rank(), dist.get_world_size()
    data, net = digits(), network()
    parameters = list(net.parameters())
    model_bytes = sum(parameter.nbytes for parameter in parameters)
    ledger = CommLedger()
    peers = FixedPeers(agent, ledger, timedelta(seconds=120))
    optimizer = torch.optim.SGD(parameters, lr=LR, momentum=MOMENTUM)
    communication = Communication(RandomMatching(), Schedule(every_n_steps=EVERY), seed=SEED)
    own = Agent(net, peers, communication, [optimizer])
    model: nn.Module = DistributedDataParallel(net) if method == "DDP" else net
    stepper = optimizer
    if method == "PostLocalSGD":
        from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
        from torch.distributed.optim import PostLocalSGDOptimizer

        averager = PeriodicModelAverager(period=EVERY, warmup_steps=0)
        stepper = PostLocalSGDOptimizer(optimizer, averager)
    seconds, step, reached, total_sent = 0.0, 0, 0.0, 0.0
    while step < STEPS and reached < target:
        dist.barrier()
        started = time.perf_counter()
        for _ in range(EVERY):
            step += 1
            images, labels = batch_of(alpha, agent, agents, step - 1)
            stepper.zero_grad()
            cross_entropy(model(images), labels).backward()
            stepper.step()
            before = ledger.total().bytes_sent
            if method == "decentralized":
                own.after_step(step, float("inf"))
            sent = {
                "DDP": ring_all_reduce_bytes(model_bytes, agents),
                "PostLocalSGD": ring_all_reduce_bytes(model_bytes, agents) * (step % EVERY == 0),
                "decentralized": ledger.total().bytes_sent - before,
            }[method]
            if emulated_mbit:
                time.sleep(agents * sent * 8 / emulated_mbit / 1e6)
            total_sent += sent
        dist.barrier()
        seconds += time.perf_counter() - started
        means = own.mean(parameters, "measurement")  # not timed, nor is the evaluation
        merged = network()
        with torch.no_grad():
            for place, mean in zip(merged.parameters(), means, strict=True):
                place.copy_(mean)
        reached = accuracy(merged, data)
    if method == "decentralized":  # the merge is timed
        dist.barrier()
        started = time.perf_counter()
        own.merge(step)
        dist.barrier()
        seconds += time.perf_counter() - started
        total_sent += ring_all_reduce_bytes(model_bytes, agents)
    if agent == 0:
        result = {"seconds": seconds, "steps": step, "accuracy": reached, "bytes": total_sent}
        print(json.dumps(result | {"parameters": model_bytes // 4}), flush=True)
    dist.destroy_process_group()


def in_slow_network(command: list[str], mbit: float) -> tuple[list[str], bool]:
    """Return ``command`` behind a token bucket, and whether this machine allows one."""
    limit = (
        "ip link set lo up && "
        f"tc qdisc add dev lo root tbf rate {mbit}mbit burst 128kb latency 400ms"
    )
    allowed = subprocess.run(
        ["unshare", "-n", "sh", "-c", limit], capture_output=True, check=False
    ).returncode
    if allowed != 0:
        return command, False
    return ["unshare", "-n", "sh", "-c", f'{limit} && exec "$@"', "sh", *command], True


def compare_on_slow_network(mbit: float, agents: int, alpha: float) -> None:
    server = server_accuracy(agents, alpha)
    target = 0.95 * server
    print(
        f"{agents} agents, digits, Dirichlet {alpha}, SGD {LR}, batch {BATCH}; server reaches "
        f"{100 * server:.1f} % in {STEPS} steps, target {100 * target:.1f} %"
    )
    results = {}
    for method in METHODS:
        arguments = ["worker", method, str(target), str(alpha)]
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *(f"--nproc-per-node={agents}", __file__, *arguments),
        ]
        command, is_limited = in_slow_network([*command, "0"], mbit)
        if not is_limited:
            command = [*command[:-1], str(mbit)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if run.returncode:
            raise SystemExit(run.stderr[-2000:])
        results[method] = json.loads(run.stdout.strip().splitlines()[-1])
        one = results[method]
        how = "tbf on the loopback" if is_limited else "sleeping"
        print(
            f"{method:14} {one['seconds']:7.1f} s  {one['steps']:5d} steps  accuracy "
            f"{100 * one['accuracy']:.1f} %  {one['bytes'] / 1e6:8.2f} MB sent by the first agent  "
            f"({mbit:g} Mbit/s by {how}, {one['parameters']} parameters)",
            flush=True,
        )
    ours, ddp = results["decentralized"], results["DDP"]
    print(
        f"decentralized against DDP: {ddp['seconds'] / ours['seconds']:.1f} times less time, "
        f"{ddp['bytes'] / ours['bytes']:.0f} times fewer bytes"
    )


class Digit(LightningModule):
    def __init__(self, seed: int = SEED) -> None:
        super().__init__()
        self.network = network(seed)

    def training_step(self, batch: tuple, batch_idx: int) -> torch.Tensor:
        return cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=LR, momentum=MOMENTUM)


def merged_with(wire: WireName, seed: int, agents: int, alpha: float) -> tuple[float, int]:
    """Return the accuracy of the merged agents in per cent, and the bytes of their gossip."""
    partition = DirichletPartition(alpha, EVERY * BATCH, seed=seed)
    strategy = SimulatedDecentralizedStrategy(agents, seed=seed, wire=wire)
    schedule = Schedule(every_n_steps=EVERY)
    strategy.communication = Communication(RandomMatching(), schedule, seed=seed)
    data = DigitsDataModule(BATCH, seed, partition=partition)
    module = Digit(seed)
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        quiet_trainer(strategy, STEPS, limit_val_batches=0).fit(module, datamodule=data)
    sent = sum(strategy.ledger.of(agent, "gossip").bytes_sent for agent in range(agents))
    return 100 * accuracy(module.network, digits()), sent


def compare_wires(seeds: int, agents: int, alpha: float) -> None:
    differences = []
    for seed in range(seeds):
        plain, whole = merged_with("weights", seed, agents, alpha)
        rounded, part = merged_with("int8", seed, agents, alpha)
        differences.append(rounded - plain)
        print(
            f"seed {seed}: merged accuracy {plain:.1f} % with float32, {rounded:.1f} % with int8, "
            f"which sent {part / whole:.4f} of the bytes of gossip",
            flush=True,
        )
    mean, error = statistics.mean(differences), statistics.stdev(differences) / seeds**0.5
    reach = float(stats.t.ppf(0.975, seeds - 1)) * error
    print(
        f"{agents} agents, Dirichlet {alpha}, {STEPS} steps: int8 minus float32 {mean:+.2f} "
        f"[{mean - reach:+.2f}, {mean + reach:+.2f}] points (95 % t-interval, {seeds} pairs)"
    )


def quiet_trainer(strategy: Any, steps: int, **options: Any) -> Trainer:
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    options |= dict.fromkeys(quiet, False)
    return Trainer(accelerator="cpu", devices=1, strategy=strategy, max_steps=steps, **options)


def compare_simulations(pairs: int, steps: int, agents: int = 16) -> None:
    data = digits()
    images, labels = data.train_dataset.images, data.train_dataset.labels
    communication = Communication(RandomMatching(), Schedule(every_n_steps=EVERY))

    def fit(strategy: Any) -> None:
        dataset = TensorDataset(images[: BATCH * steps], labels[: BATCH * steps])
        quiet_trainer(strategy, steps).fit(Digit(), DataLoader(dataset, BATCH, shuffle=True))

    def cpu_seconds(work: Callable[[], Any]) -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    def plain() -> None:
        for _ in range(agents):
            fit("auto")

    def simulated() -> None:
        # The folder receives communication.json.
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            strategy = SimulatedDecentralizedStrategy(agents, data="user")
            strategy.communication = communication
            fit(strategy)

    net = network().eval()

    def loss_fn(parameters: dict, batch: tuple) -> torch.Tensor:
        return cross_entropy(functional_call(net, parameters, (batch[0],)), batch[1])

    generator = torch.Generator().manual_seed(SEED)

    def batches(step: int) -> tuple:
        chosen = torch.randint(len(labels), (agents, BATCH), generator=generator)
        return images[chosen], labels[chosen]

    def batched() -> None:
        sgd = partial(torch.optim.SGD, lr=LR, momentum=MOMENTUM)
        start = dict(net.named_parameters())
        simulate(loss_fn, start, batches, sgd, communication, agents, steps)

    def torch_loops() -> None:
        for agent in range(agents):
            module = network()
            optimizer = torch.optim.SGD(module.parameters(), lr=LR, momentum=MOMENTUM)
            for step in range(steps):
                features, targets = batches(step)
                optimizer.zero_grad()
                cross_entropy(module(features[agent]), targets[agent]).backward()
                optimizer.step()

    print(f"{agents} agents, {steps} steps each, fully connected net of 26122 parameters, batch 32")
    for what, a, b in (
        ("SimulatedDecentralizedStrategy / plain Trainers in turn", plain, simulated),
        ("plain Trainers in turn / simulate()", batched, plain),
        ("plain torch loops in turn / simulate()", batched, torch_loops),
    ):
        ratio = paired_ratio(partial(cpu_seconds, a), partial(cpu_seconds, b), pairs, warmup=1)
        print(f"{what}: {ratio}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    on_network = commands.add_parser("network")
    on_network.add_argument("--mbit", type=float, default=50.0)
    on_network.add_argument("--agents", type=int, default=4)
    on_network.add_argument("--alpha", type=float, default=1.0)
    wires = commands.add_parser("wire")
    wires.add_argument("--seeds", type=int, default=5)
    wires.add_argument("--agents", type=int, default=4)
    wires.add_argument("--alpha", type=float, default=1.0)
    simulation = commands.add_parser("simulation")
    simulation.add_argument("--pairs", type=int, default=8)
    simulation.add_argument("--steps", type=int, default=60)
    worker = commands.add_parser("worker")
    worker.add_argument("method", choices=METHODS)
    for name in ("target", "alpha", "emulated_mbit"):
        worker.add_argument(name, type=float)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.command == "worker":
        train_until(arguments.method, arguments.target, arguments.alpha, arguments.emulated_mbit)
        return
    print(f"{platform.machine()}, torch {torch.__version__}, lightning {lightning_version}")
    if arguments.command == "network":
        compare_on_slow_network(arguments.mbit, arguments.agents, arguments.alpha)
        return
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if arguments.command == "wire":
        compare_wires(arguments.seeds, arguments.agents, arguments.alpha)
    else:
        compare_simulations(arguments.pairs, arguments.steps)


if __name__ == "__main__":
    main()
