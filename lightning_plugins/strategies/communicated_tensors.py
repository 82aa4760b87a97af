"""The tensors that agents communicate: which ones, packing them, and mixing them."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Buffers = Literal["mix", "local", "recalibrate"]
OptimizerState = Literal["keep", "average", "reset"]


def communicated_parameters(module: nn.Module) -> dict[str, Tensor]:
    """Return trainable floating-point parameters by name; tied parameters appear once."""
    return {
        name: parameter
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and parameter.is_floating_point()
    }


def communicated_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Return persistent floating-point buffers by name; integer counters stay local."""
    saved = module.state_dict(keep_vars=True)
    return {
        name: buffer
        for name, buffer in module.named_buffers()
        if name in saved and buffer.is_floating_point()
    }


class CommunicatedTensors:
    """The tensors of one agent that a round mixes, as flat buffers.

    Args:
        module: The agent's model.
        with_buffers: Include the model's floating-point buffers.
        optimizers: Optimizers whose floating-point state is included.
    """

    def __init__(
        self, module: nn.Module, with_buffers: bool, optimizers: Sequence[Optimizer] = ()
    ) -> None:
        parameters = communicated_parameters(module)
        tensors = dict(parameters)
        if with_buffers:
            tensors |= communicated_buffers(module)
        for index, optimizer in enumerate(optimizers):
            tensors |= _state_tensors(index, optimizer, parameters)
        self.flat = FlatBuffers(tensors)
        self.names = list(tensors)
        self.parameter_sizes = self._sizes(parameters, tensors)

    @staticmethod
    def _sizes(parameters: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[int]:
        """Count the parameter values in each dtype's buffer, in the order of the buffers."""
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
    """Zero every tensor of the optimizers' state: moments and step counts.

    The tensors are kept, because some optimizers create their state only once.
    """
    for optimizer in optimizers:
        for state in optimizer.state.values():
            for value in state.values():
                if isinstance(value, Tensor):
                    value.zero_()


class FlatBuffers:
    """Copies named tensors into one contiguous buffer per dtype, and back.

    A transfer then takes one message instead of hundreds. The tensors keep their memory, so
    references in optimizers and compiled graphs stay valid.

    Args:
        tensors: Floating-point tensors by name, on one device.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors.values():
            self._by_dtype.setdefault(tensor.dtype, []).append(tensor.detach())
        shapes = sorted((name, tuple(t.shape), str(t.dtype)) for name, t in tensors.items())
        digest = hashlib.sha256(repr(shapes).encode()).digest()
        self.fingerprint = int.from_bytes(digest[:7], "big")
        """A 56-bit hash of names, shapes and dtypes."""

    def pack(self) -> list[Tensor]:
        """Copy the tensors into one flat buffer ``(numel,)`` per dtype."""
        return [
            torch.cat([tensor.reshape(-1) for tensor in tensors])
            for tensors in self._by_dtype.values()
        ]

    @torch.no_grad()
    def unpack(self, flats: Sequence[Tensor]) -> None:
        """Copy buffers in the layout of :meth:`pack` back into the tensors."""
        for tensors, flat in zip(self._by_dtype.values(), flats, strict=True):
            torch._foreach_copy_(tensors, _views(flat, tensors))

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes."""
        return sum(t.nbytes for tensors in self._by_dtype.values() for t in tensors)


def _views(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = flat.split([tensor.numel() for tensor in like])
    return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]


def are_finite(flats: Sequence[Tensor]) -> bool:
    """Whether all values are finite; takes one pass and one device synchronization per buffer."""
    # NaN and infinity propagate through a sum. A sum of finite values may overflow: check again.
    if all(bool(torch.isfinite(flat.sum(dtype=torch.float64))) for flat in flats):
        return True
    return all(bool(torch.isfinite(flat).all()) for flat in flats)


@torch.no_grad()
def mixed(
    own: Tensor, own_as_sent: Tensor, received: Sequence[Tensor], weights: Sequence[float]
) -> Tensor:
    """Compute one agent's weights after a round: ``x + sum_j w_j (q(x_j) - q(x))``.

    If the wire dtype is narrower than that of the weights, the agent uses the rounded copy of its
    own weights that the others receive, ``q(x)``. Rounding then does not change the mean in a
    doubly stochastic round.

    Args:
        own: The agent's weights x, ``(numel,)``.
        own_as_sent: The agent's weights in the wire dtype, q(x).
        received: The weights q(x_j) of each source, in the wire dtype.
        weights: The mixing weight w_j of each source.
    """
    accumulated = own.to(torch.promote_types(own.dtype, torch.float32), copy=True)
    base = own_as_sent.to(accumulated.dtype)
    for flat, weight in zip(received, weights, strict=True):
        accumulated.add_(flat.to(accumulated.dtype) - base, alpha=weight)
    return accumulated.to(own.dtype)
