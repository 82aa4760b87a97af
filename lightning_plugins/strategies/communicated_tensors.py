"""Which tensors of an agent take part in gossip and merging."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Buffers = Literal["mix", "local", "recalibrate"]
OptimizerState = Literal["keep", "average", "reset"]


def communicated_parameters(module: nn.Module) -> dict[str, Tensor]:
    """Trainable floating-point parameters by name; tied ones once, frozen ones not at all."""
    return {
        name: parameter
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and parameter.is_floating_point()
    }


def communicated_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Saved floating-point buffers by name; counters such as ``num_batches_tracked`` stay local."""
    saved = module.state_dict(keep_vars=True)
    return {
        name: buffer
        for name, buffer in module.named_buffers()
        if name in saved and buffer.is_floating_point()
    }


class CommunicatedTensors:
    """The tensors of one agent that a round mixes, as flat buffers.

    Args:
        module: the agent's model.
        with_buffers: whether its floating-point buffers take part.
        optimizers: whose state takes part too.
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


class FlatBuffers:
    """Copies named tensors into one contiguous buffer for each dtype, and back.

    One message instead of hundreds. The tensors themselves stay where they are, so optimizers and
    compiled graphs keep hold of them.

    Args:
        tensors: by name; floating point, on one device.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors.values():
            self._by_dtype.setdefault(tensor.dtype, []).append(tensor.detach())
        shapes = sorted((name, tuple(t.shape), str(t.dtype)) for name, t in tensors.items())
        digest = hashlib.sha256(repr(shapes).encode()).digest()
        self.fingerprint = int.from_bytes(digest[:7], "big")
        """The same where names, shapes and dtypes are; fits a 64-bit integer."""

    def pack(self) -> list[Tensor]:
        """Copies of the tensors, one flat buffer ``(numel,)`` for each dtype."""
        return [
            torch.cat([tensor.reshape(-1) for tensor in tensors])
            for tensors in self._by_dtype.values()
        ]

    @torch.no_grad()
    def unpack(self, flats: Sequence[Tensor]) -> None:
        """Write buffers, as :meth:`pack` makes them, into the tensors."""
        for tensors, flat in zip(self._by_dtype.values(), flats, strict=True):
            torch._foreach_copy_(tensors, _views(flat, tensors))

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.nbytes for tensors in self._by_dtype.values() for t in tensors)


def _views(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = flat.split([tensor.numel() for tensor in like])
    return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]


def are_finite(flats: Sequence[Tensor]) -> bool:
    """Whether no value is NaN or infinite: one pass, and one wait for the device."""
    # A NaN or an infinity in a sum stays one; the sum of finite ones may overflow, so look closer.
    if all(bool(torch.isfinite(flat.sum(dtype=torch.float64))) for flat in flats):
        return True
    return all(bool(torch.isfinite(flat).all()) for flat in flats)


@torch.no_grad()
def mixed(
    own: Tensor, own_as_sent: Tensor, received: Sequence[Tensor], weights: Sequence[float]
) -> Tensor:
    """``x + sum_j w_j (q(x_j) - q(x))``: one agent's weights after a round.

    Where the wire is narrower than the weights, the agent takes part with its own weights as the
    others see them, ``q(x)``, so that rounding moves no mean of a doubly stochastic round.

    Args:
        own: x, ``(numel,)``.
        own_as_sent: q(x), in the dtype of the wire.
        received: q(x_j) of each source, in the dtype of the wire.
        weights: w_j of each source.
    """
    accumulated = own.to(torch.promote_types(own.dtype, torch.float32), copy=True)
    base = own_as_sent.to(accumulated.dtype)
    for flat, weight in zip(received, weights, strict=True):
        accumulated.add_(flat.to(accumulated.dtype) - base, alpha=weight)
    return accumulated.to(own.dtype)
