"""A network in evaluation mode for the time of an attack."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def evaluation_mode(network: Any) -> Iterator[None]:
    """Put every submodule of ``network`` in evaluation mode, and each back as it was found.

    BatchNorm then uses its running statistics and leaves them alone, and dropout is off. The flags
    are set without calling ``train`` or ``eval``, which some networks override. What is not a
    ``torch.nn.Module`` is left alone.
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
