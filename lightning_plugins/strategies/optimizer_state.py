"""The optimizer state of agents that average or reset it."""

import hashlib
import json
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_plugins.strategies.communicated_tensors import is_real_or_complex
from lightning_plugins.strategies.peers import Peers


def agree_on_state(
    peers: Peers, optimizers: Sequence[Optimizer], parameters: Mapping[str, Tensor]
) -> None:
    """Create zeros for optimizer state that other agents have and this agent lacks.

    An optimizer creates the state of a parameter at its first gradient, and a parameter may be
    unused on some agents.
    """
    device = next(iter(parameters.values())).device
    own = json.dumps(state_layout(optimizers, parameters)).encode()
    digest = int.from_bytes(hashlib.sha256(own).digest()[:7], "big")
    if any(int(part) != digest for part in peers.gather(torch.tensor([digest], device=device))):
        for content in peers.gather_bytes(own, device):
            add_missing_state(optimizers, parameters, json.loads(content))


def state_layout(
    optimizers: Sequence[Optimizer], parameters: Mapping[str, Tensor]
) -> list[list[object]]:
    """List the optimizer state of ``parameters``: ``[optimizer, parameter, key, shape, dtype]``."""
    name_of = {parameter: name for name, parameter in parameters.items()}
    return sorted(
        [index, name_of[parameter], key, list(value.shape), str(value.dtype)]
        for index, optimizer in enumerate(optimizers)
        for parameter, state in optimizer.state.items()
        if parameter in name_of
        for key, value in state.items()
        if isinstance(value, Tensor) and is_real_or_complex(value)
    )


def add_missing_state(
    optimizers: Sequence[Optimizer],
    parameters: Mapping[str, Tensor],
    layout: Sequence[Sequence[object]],
) -> None:
    """Create the state in ``layout`` that an optimizer lacks, as zeros: no step was taken yet."""
    for index, name, key, shape, dtype in layout:
        parameter = parameters[str(name)]
        state = optimizers[int(str(index))].state[parameter]
        if not isinstance(state.get(key), Tensor):
            if tuple(shape) == tuple(parameter.shape):  # type: ignore[arg-type]
                state[key] = torch.zeros_like(parameter, dtype=_dtype(dtype))
                continue
            # Step counts are kept on the CPU, unlike the moments.
            device = parameter.device if shape else torch.device("cpu")
            state[key] = torch.zeros(shape, dtype=_dtype(dtype), device=device)  # type: ignore[call-overload]


def _dtype(name: object) -> torch.dtype:
    return getattr(torch, str(name).removeprefix("torch."))


@torch.no_grad()
def reset_state(optimizers: Sequence[Optimizer]) -> None:
    """Zero every tensor of the optimizers' state: moments and step counts.

    The tensors are kept, because some optimizers create their state only once.
    """
    for optimizer in optimizers:
        for state in optimizer.state.values():
            for value in state.values():
                if isinstance(value, Tensor):
                    value.zero_()
