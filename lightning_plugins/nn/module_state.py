"""Restores the modes and buffers of a network after a forward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def evaluation_mode(network: Any) -> Iterator[None]:
    """Put every submodule of ``network`` into evaluation mode, and restore each mode afterwards.

    In evaluation mode, BatchNorm uses its running statistics without updating them, and dropout is
    off. The flags are set without calling ``train`` or ``eval``, which some networks override. If
    ``network`` is not a ``torch.nn.Module``, nothing happens.
    """
    modules = list(network.modules()) if isinstance(network, nn.Module) else []
    modes = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


@contextmanager
def buffers_untouched(module: nn.Module) -> Iterator[None]:
    """Restore all buffers of ``module`` after the block, bit for bit and as the same tensors.

    All buffers are copied, because PyTorch cannot report which ones a forward pass changes: batch
    normalization does not even advance the version counter of its running statistics.
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
