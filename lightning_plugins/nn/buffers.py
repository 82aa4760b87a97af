"""Keeping a network's buffers through a forward pass that must leave no trace."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def buffers_untouched(module: nn.Module) -> Iterator[None]:
    """Put all buffers of ``module`` back, bit for bit and as the same tensors, after the block.

    All of them, because which ones a forward pass changes cannot be asked: batch normalization
    does not even advance the version counter of its running statistics.
    """
    places = [
        (owner, name, buffer)
        for owner in module.modules()
        for name, buffer in owner._buffers.items()
        if buffer is not None
    ]
    # An expanded buffer cannot be written in place, so it cannot have changed either.
    writable = [buffer for *_, buffer in places if not _overlaps_itself(buffer)]
    before = [buffer.detach().clone() for buffer in writable]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(writable, before, strict=True):
                buffer.copy_(value)
        for owner, name, buffer in places:
            owner._buffers[name] = buffer


def _overlaps_itself(tensor: Tensor) -> bool:
    if tensor.layout != torch.strided:
        return False
    return any(
        stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)
    )
