"""A second module for other weights."""

import copy
from types import MethodType

from lightning.pytorch import LightningModule


def copied_module(module: LightningModule) -> LightningModule:
    """A copy with parameters, buffers and submodules of its own; all else is shared.

    ``copy.deepcopy`` fails on modules that LightningCLI made: what builds their optimizers holds
    the parser.
    """
    copied = copy.copy(module)
    memo: dict = {}  # one for all three, so that tied weights stay tied
    for part in ("_parameters", "_buffers", "_modules"):
        copied.__dict__[part] = copy.deepcopy(module.__dict__[part], memo)
    for name, value in list(copied.__dict__.items()):
        # As LightningCLI's configure_optimizers: it must work on the copy.
        if isinstance(value, MethodType) and value.__self__ is module:
            copied.__dict__[name] = MethodType(value.__func__, copied)
    return copied
