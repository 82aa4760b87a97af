"""Many tensors as one contiguous buffer for each dtype."""

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


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
