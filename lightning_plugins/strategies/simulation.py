"""Decentralized training of a function, all agents in one batched computation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap
from torch.optim import Optimizer

from lightning_plugins.strategies.communication import Communication
from lightning_plugins.strategies.ledger import CommLedger
from lightning_plugins.strategies.stacked_agents import StackedAgents

Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class Simulated:
    """The end of a simulation.

    Attributes:
        agents: parameters by name, ``(agents, *shape)``.
        merged: their mean by name, ``(*shape)``.
        losses: mean loss over agents of each step, ``(steps,)``.
        consensus_distance: ``1/n sum_i ||x_i - x̄||^2`` at the end.
        ledger: what real agents would have sent.
    """

    agents: Parameters
    merged: Parameters
    losses: Tensor
    consensus_distance: float
    ledger: CommLedger


def simulate(
    loss_fn: Callable[[Parameters, Any], Tensor],
    parameters: Mapping[str, Tensor],
    batches: Callable[[int], Any],
    optimizer: Callable[[list[Tensor]], Optimizer],
    communication: Communication,
    num_agents: int,
    steps: int,
    *,
    randomness: str = "error",
    observe: Callable[[int, Parameters], None] | None = None,
) -> Simulated:
    """Train ``num_agents`` agents by ``torch.func.vmap`` over their stacked parameters.

    The same topologies, schedules, merges and books as ``DecentralizedStrategy``, without a
    Trainer. For small networks it is several times faster than one agent after the other; networks
    of convolutions gain little on a CPU. ``loss_fn`` must be a function: it logs nothing, and batch
    normalization must not track statistics.

    Args:
        loss_fn: scalar loss of one agent's parameters on one agent's batch.
        parameters: initial ones by name, floating point of one dtype, the same for all agents.
        batches: of a step number from 0, the agents' batches: tensors ``(agents, ...)``.
        optimizer: made of ``[one tensor (agents, numel)]``; it must work element by element, as
            SGD, Adam and AdamW do, since norms would be taken over all agents.
        communication: who meets when.
        num_agents: at least 1.
        steps: optimizer steps of each agent.
        randomness: of dropout over agents, as ``torch.func.vmap`` takes it: ``different`` or
            ``same``; ``error`` refuses it.
        observe: called after each round with the step number and the agents' parameters.

    Raises:
        ValueError: parameters of several dtypes, or a communication that the run cannot keep.

    Example::

        end = simulate(loss_fn, dict(net.named_parameters()), batches, partial(SGD, lr=0.1),
                       Communication(RandomPull(0.2)), num_agents=16, steps=1000)
    """
    dtypes = {tensor.dtype for tensor in parameters.values()}
    if len(dtypes) != 1:
        raise ValueError(f"parameters of {sorted(map(str, dtypes))}: expected one dtype")
    communication.check(num_agents, steps)
    shapes = {name: tensor.shape for name, tensor in parameters.items()}
    sizes = [tensor.numel() for tensor in parameters.values()]

    def by_name(flat: Tensor) -> Parameters:
        parts = flat.split(sizes, dim=-1)
        return {
            name: part.view(*flat.shape[:-1], *shape)
            for (name, shape), part in zip(shapes.items(), parts, strict=True)
        }

    start = torch.cat([tensor.detach().reshape(-1) for tensor in parameters.values()])
    rows = start.repeat(num_agents, 1).requires_grad_()
    stepper = optimizer([rows])
    stacked = StackedAgents([rows.detach()], communication, CommLedger())
    gradients_and_losses = vmap(
        grad_and_value(lambda flat, batch: loss_fn(by_name(flat), batch)), randomness=randomness
    )
    losses = []
    for step in range(steps):
        rows.grad, loss = gradients_and_losses(rows.detach(), batches(step))
        stepper.step()
        losses.append(loss.detach().mean())
        meeting = stacked.after_step(step + 1, steps)
        if meeting is not None and observe is not None:
            observe(step + 1, by_name(rows.detach()))
    return Simulated(
        agents=by_name(rows.detach()),
        merged=by_name(rows.detach().mean(0)),
        losses=torch.stack(losses) if losses else torch.empty(0),
        consensus_distance=float(stacked.consensus_distance()),
        ledger=stacked.ledger,
    )
