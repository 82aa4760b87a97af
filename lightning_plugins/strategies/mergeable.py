"""Which tensors of an agent take part in gossip and merging."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_plugins.strategies.flat_buffers import FlatBuffers

Buffers = Literal["mix", "local", "recalibrate"]
OptimizerState = Literal["keep", "average", "reset"]


def mergeable_parameters(module: nn.Module) -> dict[str, Tensor]:
    """Trainable floating-point parameters by name; tied ones once, frozen ones not at all."""
    return {
        name: parameter
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and parameter.is_floating_point()
    }


def mergeable_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Saved floating-point buffers by name; counters such as ``num_batches_tracked`` stay local."""
    saved = module.state_dict(keep_vars=True)
    return {
        name: buffer
        for name, buffer in module.named_buffers()
        if name in saved and buffer.is_floating_point()
    }


class Mergeable:
    """The tensors of one agent that a round mixes, as flat buffers.

    Args:
        module: the agent's model.
        with_buffers: whether its floating-point buffers take part.
        optimizers: whose state takes part too.
    """

    def __init__(
        self, module: nn.Module, with_buffers: bool, optimizers: Sequence[Optimizer] = ()
    ) -> None:
        parameters = mergeable_parameters(module)
        tensors = dict(parameters)
        if with_buffers:
            tensors |= mergeable_buffers(module)
        for index, optimizer in enumerate(optimizers):
            tensors |= _state_tensors(index, optimizer, parameters)
        self.flat = FlatBuffers(tensors)
        self.names = list(tensors)
        self.parameter_sizes = self._sizes(parameters, tensors)

    @staticmethod
    def _sizes(parameters: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[int]:
        """For each dtype's buffer, in its order, how many values are parameters."""
        sizes: dict[torch.dtype, int] = {}
        for name, tensor in tensors.items():
            counted = tensor.numel() if name in parameters else 0
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + counted
        return list(sizes.values())


def _state_tensors(
    index: int, optimizer: Optimizer, parameters: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    name_of = {parameter: name for name, parameter in parameters.items()}
    return {
        f"optimizer.{index}.{name_of[parameter]}.{key}": value
        for parameter, state in optimizer.state.items()
        if parameter in name_of
        for key, value in sorted(state.items())
        if isinstance(value, Tensor) and value.is_floating_point()
    }


@torch.no_grad()
def reset_state(optimizers: Sequence[Optimizer]) -> None:
    """Zero every tensor of the optimizers' state: moments, and the counts that correct their bias.

    Kept in place, because some optimizers make their state only once.
    """
    for optimizer in optimizers:
        for state in optimizer.state.values():
            for value in state.values():
                if isinstance(value, Tensor):
                    value.zero_()
