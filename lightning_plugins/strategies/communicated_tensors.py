"""The tensors that agents communicate: which ones, packing them, and mixing them."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_plugins.nn.shards import local

Buffers = Literal["mix", "local", "recalibrate"]
OptimizerState = Literal["keep", "average", "reset"]


def communicated_parameters(
    module: nn.Module, also: Collection[str] = frozenset()
) -> dict[str, Tensor]:
    """Return trainable floating-point and complex parameters by name; tied ones appear once.

    Args:
        module: The agent's model.
        also: Names of further parameters, which may not require gradients at this moment.
    """
    return {
        name: parameter
        for name, parameter in module.named_parameters()
        if (parameter.requires_grad or name in also) and is_real_or_complex(parameter)
    }


def communicated_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Return persistent floating-point and complex buffers by name; integers stay local."""
    saved = module.state_dict(keep_vars=True)
    return {
        name: buffer
        for name, buffer in module.named_buffers()
        if name in saved and is_real_or_complex(buffer)
    }


def as_real(tensor: Tensor) -> Tensor:
    """Return a real view of this process' part of a tensor.

    A complex tensor has a last dimension of 2.
    """
    tensor = local(tensor)
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def is_real_or_complex(tensor: Tensor) -> bool:
    """Whether a tensor can be averaged."""
    return tensor.is_floating_point() or tensor.is_complex()


class CommunicatedTensors:
    """The tensors of one agent that a round mixes, as flat buffers.

    Args:
        module: The agent's model.
        with_buffers: Include the model's floating-point buffers.
        optimizers: Optimizers whose floating-point state is included.
        also: Names of parameters to include although they do not require gradients.
    """

    def __init__(
        self,
        module: nn.Module,
        with_buffers: bool,
        optimizers: Sequence[Optimizer] = (),
        also: Collection[str] = frozenset(),
    ) -> None:
        parameters = communicated_parameters(module, also)
        tensors = dict(parameters)
        if with_buffers:
            tensors |= communicated_buffers(module)
        for index, optimizer in enumerate(optimizers):
            tensors |= _state_tensors(index, optimizer, parameters)
        self.flat = FlatBuffers(tensors)
        self.names = list(tensors)
        self.parameters = list(parameters)

    def parameters_of(self, flats: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return views of the parameters' parts of ``flats``, by name."""
        views = self.flat.views(flats)
        return {name: views[name] for name in self.parameters}


def _state_tensors(
    index: int, optimizer: Optimizer, parameters: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    name_of = {parameter: name for name, parameter in parameters.items()}
    found = {
        f"optimizer.{index}.{name_of[parameter]}.{key}": value
        for parameter, state in optimizer.state.items()
        if parameter in name_of
        for key, value in state.items()
        if isinstance(value, Tensor) and is_real_or_complex(value)
    }
    # Agents may have used their parameters in different orders.
    return dict(sorted(found.items()))


class FlatBuffers:
    """Copies named tensors into one contiguous real buffer per dtype, and back.

    A transfer then takes one message instead of hundreds. The tensors keep their memory, so
    references in optimizers and compiled graphs stay valid. Complex tensors are pairs of reals.

    Args:
        tensors: Floating-point or complex tensors by name, on one device.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._by_dtype: dict[torch.dtype, dict[str, Tensor]] = {}
        self._complex = {name for name, tensor in tensors.items() if tensor.is_complex()}
        for name, tensor in tensors.items():
            real = as_real(tensor.detach())
            self._by_dtype.setdefault(real.dtype, {})[name] = real
        shapes = sorted((name, tuple(t.shape), str(t.dtype)) for name, t in tensors.items())
        digest = hashlib.sha256(repr(shapes).encode()).digest()
        self.fingerprint = int.from_bytes(digest[:7], "big")
        """A 56-bit hash of names, shapes and dtypes."""

    def pack(self) -> list[Tensor]:
        """Copy the tensors into one flat buffer ``(numel,)`` per dtype."""
        return [
            torch.cat([tensor.reshape(-1) for tensor in tensors.values()])
            for tensors in self._by_dtype.values()
        ]

    @torch.no_grad()
    def unpack(self, flats: Sequence[Tensor]) -> None:
        """Copy buffers in the layout of :meth:`pack` back into the tensors."""
        for tensors, flat in zip(self._by_dtype.values(), flats, strict=True):
            own = list(tensors.values())
            torch._foreach_copy_(own, _views(flat, own))

    def views(self, flats: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return views of ``flats``, in the layout of :meth:`pack`, by name."""
        return {
            name: view
            for tensors, flat in zip(self._by_dtype.values(), flats, strict=True)
            for name, view in zip(tensors, _views(flat, list(tensors.values())), strict=True)
        }

    def copies(self, flats: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the tensors as they were when they were packed into ``flats``, by name."""
        return {
            name: torch.view_as_complex(view) if name in self._complex else view
            for name, view in self.views(flats).items()
        }

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes."""
        return sum(t.nbytes for tensors in self._by_dtype.values() for t in tensors.values())


def _views(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = flat.split([tensor.numel() for tensor in like])
    return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]


def are_finite(flats: Sequence[Tensor]) -> bool:
    """Whether all values are finite; takes one pass and one device synchronization per buffer."""
    for flat in flats:
        # In parts, because torch converts the whole tensor to float64 before it sums.
        parts = flat.reshape(-1).split(_PART)
        # NaN and infinity propagate through a sum, which may also overflow: check again.
        total = torch.stack([part.sum(dtype=torch.float64) for part in parts]).sum()
        is_finite = bool(torch.isfinite(total))
        if not is_finite and not all(bool(torch.isfinite(part).all()) for part in parts):
            return False
    return True


_PART = 1 << 20


@torch.no_grad()
def mixed(
    own: Tensor, own_as_sent: Tensor, received: Iterable[Tensor], weights: Iterable[float]
) -> Tensor:
    """Compute one agent's weights after a round: ``x + sum_j w_j (q(x_j) - q(x))``.

    If tensors are rounded for the transfer, the agent uses the rounded copy of its own weights that
    the others receive, ``q(x)``. Rounding then does not change the mean in a doubly stochastic
    round.

    Args:
        own: The agent's weights x, ``(numel,)``.
        own_as_sent: The agent's weights as the others receive them, q(x).
        received: The weights q(x_j) of each source.
        weights: The mixing weight w_j of each source.
    """
    wide = torch.promote_types(own.dtype, torch.float32)
    accumulated = own.to(wide, copy=True)
    base = own_as_sent.to(wide)
    for flat, weight in zip(received, weights, strict=True):
        accumulated.add_(flat.to(accumulated.dtype) - base, alpha=weight)
    return accumulated.to(own.dtype)


@torch.no_grad()
def mix_in_place(own: Tensor, received: Sequence[Tensor], weights: Sequence[float]) -> None:
    """Replace ``own`` by :func:`mixed` with unrounded values; ``received`` become differences."""
    for flat in received:
        flat.sub_(own)
    for flat, weight in zip(received, weights, strict=True):
        own.add_(flat, alpha=weight)
