"""Compares the bytes that agents record with the kernel's counter, in a network namespace.

usage: program_decentralized_bytes.py OUTPUT_FOLDER (raise | drop | TOPOLOGY | merge) ...
"""

import json
import os
import sys
from pathlib import Path

import decentralized_agents as harness
import decentralized_trainers as trainers
from lightning.pytorch import Trainer
from torch import nn

from lightning_plugins.strategies import DecentralizedStrategy
from lightning_plugins.strategies.agent import Agent
from lightning_plugins.strategies.communication import Communication
from lightning_plugins.strategies.schedule import Schedule

AGENTS, ROUNDS = 4, 6


def bytes_on_the_wire():
    for line in Path("/proc/net/dev").read_text().splitlines():
        if line.strip().startswith("lo:"):
            return int(line.split()[9])
    raise RuntimeError("no loopback")


def rounds(agent, num_agents, name):
    """Run rounds of one topology with a megabyte of weights; every agent reads the counter."""
    peers = harness.connected(agent, num_agents)
    module = nn.Linear(512, 512)
    steps = ROUNDS if name == "merge" else float("inf")
    topology = harness.TOPOLOGIES["ring" if name == "merge" else name]
    rate = 0.0 if name == "merge" else 1.0
    communication = Communication(topology, Schedule(rate=rate), final_merge=name == "merge")
    one = Agent(module, peers, communication)
    one.start(shared_init=True)
    peers.barrier()
    before, recorded_before = bytes_on_the_wire(), peers.ledger.total().bytes_sent
    peers.barrier()
    for step in range(1, ROUNDS + 1):
        one.after_step(step, steps)
    recorded = peers.ledger.total().bytes_sent - recorded_before
    peers.barrier()
    return {"wire": bytes_on_the_wire() - before, "recorded": recorded}


def training(agent, num_agents, port, folder, on_peer_failure):
    """Train 26k parameters with the default schedule, validation and checkpoints."""
    os.environ |= {"LOCAL_RANK": str(agent), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    os.environ["MASTER_PORT"] = str(port)
    module = trainers.Classifier(plain=True, data="plain")
    module.network = nn.Sequential(nn.Linear(6, 2900), nn.Tanh(), nn.Linear(2900, 3))
    strategy = DecentralizedStrategy(on_peer_failure=on_peer_failure, timeout_seconds=20)
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=num_agents,
        strategy=strategy,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_steps=300,
        check_val_every_n_epoch=10,
        num_sanity_val_steps=0,
    )
    trainer.fit(module)
    return {"recorded": strategy.ledger.total().bytes_sent}


if __name__ == "__main__":
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    folder = Path(sys.argv[1])
    results = {}
    for name in sys.argv[2:]:
        if name not in ("raise", "drop"):
            agents = harness.run_agents(rounds, AGENTS, folder / name, name)
            results[name] = {
                "recorded": sum(agent["recorded"] for agent in agents),
                "wire": agents[0]["wire"],
            }
            continue
        before, port = bytes_on_the_wire(), trainers.free_port()
        agents = harness.run_agents(
            training, AGENTS, folder / name, port, str(folder / name / "run"), name
        )
        results[name] = {
            "recorded": sum(agent["recorded"] for agent in agents),
            "wire": bytes_on_the_wire() - before,
        }
    print(json.dumps(results))
