"""Tensors of an agent whose parameters are divided among its processes (FSDP2)."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from lightning_plugins.nn.shards import local, whole

if TYPE_CHECKING:
    from lightning_plugins.strategies.peers import Peers


def own_parts(state: Any) -> Any:
    """Return nested containers with this process' part of each sharded tensor."""
    return _map(local, state)


def whole_tensors(state: Any) -> Any:
    """Return nested containers with whole tensors; all processes of the agent must call it."""
    return _map(whole, state)


def contains_shards(state: Any) -> bool:
    """Whether nested containers contain a sharded tensor."""
    found: list[bool] = []
    _map(lambda x: found.append(isinstance(x, DTensor)), state)
    return any(found)


def like(value: Tensor, own: Tensor, is_part: bool) -> Tensor:
    """Return ``value`` with the sharding of ``own``.

    Args:
        value: A whole tensor, or this process' part of it.
        own: A parameter or its state.
        is_part: Whether ``value`` is a part.
    """
    if not isinstance(own, DTensor) or isinstance(value, DTensor):
        return value
    if not is_part:
        value = value.to(own.device)
        return distribute_tensor(value, own.device_mesh, own.placements, src_data_rank=None)
    part = value.to(own.device)
    return DTensor.from_local(
        part, own.device_mesh, own.placements, shape=own.shape, stride=own.stride()
    )


def sharded_as(own: Mapping[str, Tensor], state: Mapping[str, Any], is_part: bool) -> dict:
    """Return a module's ``state``, by name, with the sharding of ``own``."""
    return {
        name: like(value, own[name], is_part)
        if name in own and isinstance(value, Tensor)
        else value
        for name, value in state.items()
    }


def optimizer_state_as(optimizer: Optimizer, state: dict[str, Any], is_part: bool) -> dict:
    """Return a ``state`` of ``optimizer`` with the sharding of its parameters."""
    parameters = [own for group in optimizer.param_groups for own in group["params"]]
    return {
        **state,
        "state": {
            index: {
                key: like(value, parameters[index], is_part)
                # Step counts are scalars, which no process divides.
                if isinstance(value, Tensor) and value.dim()
                else value
                for key, value in entries.items()
            }
            for index, entries in state["state"].items()
        },
    }


def _map(change: Callable[[Any], Any], state: Any) -> Any:
    return tree_map(lambda x: change(x) if isinstance(x, Tensor) else x, state)


def squared_sum(tensors: Iterable[Tensor], like: Iterable[Tensor], peers: "Peers") -> Tensor:
    """Sum the squares of an agent's ``tensors`` over its processes.

    Args:
        tensors: Whole tensors, or this process' parts.
        like: The parameters to which they belong; those of them that are not sharded are counted
            once, although every process has them.
        peers: The connection of this process.
    """
    processes = 1 if peers.inside is None else len(peers.inside.agents)
    squares = [
        local(tensor).double().square().sum() / (1 if isinstance(own, DTensor) else processes)
        for tensor, own in zip(tensors, like, strict=True)
    ]
    return peers.sum_in_agent(torch.stack(squares).sum())
