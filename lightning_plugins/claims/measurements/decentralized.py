"""What one run of the experiment on decentralized training trains and measures.

All agents train in one batched simulation.
"""

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from lightning_plugins.claims.cell import Cell

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_plugins.strategies.communication import Communication

_SETTINGS: dict[str, Any] = {
    "agents": 16,
    "rounds": 60,
    "steps_a_round": 20,
    "batch_size": 32,
    "alpha": 0.1,
    "lr": 0.02,
    "momentum": 0.9,
    "label_smoothing": 0.1,
    "peers": 0.2,
}


def run_schedules(config: dict[str, Any], seed: int) -> Cell:
    """Train one arm; measure accuracies on the test set, traffic, and consensus distance.

    ``held_accuracy`` is the mean accuracy of the agents' final models, ``local_accuracy`` the same
    before a final merge, and ``merged_accuracy`` the accuracy of the mean of their weights.
    """
    import torch
    from torch.func import functional_call
    from torch.nn.functional import cross_entropy

    from lightning_plugins.datamodules import DigitsDataModule, DirichletPartition
    from lightning_plugins.nn.image import build_image_network
    from lightning_plugins.strategies.simulation import simulate

    settings = {**_SETTINGS, **config, **config["overrides"]}
    agents, steps_a_round = settings["agents"], settings["steps_a_round"]
    batch_size, steps = settings["batch_size"], settings["rounds"] * steps_a_round
    data = DigitsDataModule(seed=seed)
    data.setup()
    train: Any = data.train_dataset
    test: Any = data.test_dataset
    partition = DirichletPartition(settings["alpha"], steps_a_round * batch_size, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # Eval mode draws no dropout masks; the network behaves the same in both modes.
        network = build_image_network("mlp", num_classes=10, in_channels=1, image_size=8).eval()

    def loss_fn(parameters: "dict[str, Tensor]", batch: Any) -> "Tensor":
        logits = functional_call(network, parameters, (batch[0],))
        return cross_entropy(logits, batch[1], label_smoothing=settings["label_smoothing"])

    drawn: dict[int, Tensor] = {}

    def batches(step: int) -> "tuple[Tensor, Tensor]":
        epoch, place = divmod(step, steps_a_round)
        if epoch not in drawn:
            drawn.clear()
            drawn[epoch] = _shares(partition, train.labels, agents, epoch, seed)
        chosen = drawn[epoch][:, place * batch_size : (place + 1) * batch_size]
        return train.images[chosen], train.labels[chosen]

    started = time.perf_counter()
    end = simulate(
        loss_fn,
        dict(network.named_parameters()),
        batches,
        partial(torch.optim.SGD, lr=settings["lr"], momentum=settings["momentum"]),
        _communication(settings, seed),
        agents,
        steps,
    )
    seconds = time.perf_counter() - started

    def accuracy(parameters: "dict[str, Tensor]") -> float:
        with torch.no_grad():
            logits = functional_call(network, parameters, (test.images,))
        return 100 * float((logits.argmax(1) == test.labels).float().mean())

    local = [
        accuracy({name: stacked[k] for name, stacked in end.agents.items()}) for k in range(agents)
    ]
    local_accuracy, merged_accuracy = sum(local) / agents, accuracy(end.merged)
    merges = bool(settings.get("final_merge"))
    model_bytes = sum(parameter.nbytes for parameter in network.parameters())
    report = end.ledger.report(model_bytes, steps, agents)
    sent = report["training_bytes"] / agents
    if merges:  # added here, because the simulation does not apply the final merge to the agents
        sent += report["ddp_bytes"] / agents / steps
    return {
        "metrics": {
            "held_accuracy": merged_accuracy if merges else local_accuracy,
            "local_accuracy": local_accuracy,
            "merged_accuracy": merged_accuracy,
            "megabytes": sent / 1e6,
            "times_less_than_ddp": report["ddp_bytes"] / agents / sent if sent else float("inf"),
            "consensus_distance": end.consensus_distance,
            "seconds": seconds,
        }
    }


def _shares(partition: Any, labels: "Tensor", agents: int, epoch: int, seed: int) -> "Tensor":
    """Shuffled sample indices ``(agents, samples)`` of an epoch."""
    import torch

    generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
    rows = []
    for agent in range(agents):
        indices = partition.indices(labels, agent, agents, epoch)
        rows.append(indices[torch.randperm(len(indices), generator=generator)])
    return torch.stack(rows)


def _communication(settings: dict[str, Any], seed: int) -> "Communication":
    from lightning_plugins.strategies.communication import Communication
    from lightning_plugins.strategies.schedule import Schedule
    from lightning_plugins.strategies.topologies import Complete, RandomPull, Topology

    topology: Topology = Complete()
    if settings["topology"] == "pull":
        topology = RandomPull(settings["peers"])
    every = 1 if settings.get("each_step") else settings["steps_a_round"]
    if "budget_of" in settings:
        # As many averages over all agents as cover the bytes of all pulls and of one merge.
        agents = settings["agents"]
        average = 2 * (agents - 1) / agents
        affordable = -(-(settings["peers"] * settings["rounds"] + average) // average)
        schedule = Schedule(every_n_steps=every, budget=int(affordable))
    else:
        schedule = Schedule(
            settings.get("shape", "constant"),
            every,
            settings.get("rate", 1.0),
            settings.get("end_rate", 0.0),
            settings.get("start"),
            settings.get("width"),
        )
    is_window = schedule.shape == "window"
    return Communication(
        topology, schedule, Complete() if is_window else None, final_merge=False, seed=seed
    )
