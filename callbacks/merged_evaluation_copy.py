"""A second module for other weights."""

import copy
from collections import deque
from types import MethodType
from typing import Any

from lightning.pytorch import LightningModule

_CONTAINERS = (list, dict, set, deque)


def copied_module(module: LightningModule) -> LightningModule:
    """A copy with parameters, buffers, submodules and containers of its own; all else is shared.

    A list, dict, set or deque of the module, and one inside another, is the copy's own with the
    same contents, so that steps of the copy gather nothing in the module. What a container holds of
    the module's parts is the copy's part.

    ``copy.deepcopy`` fails on modules that LightningCLI made: what builds their optimizers holds
    the parser.
    """
    copied = copy.copy(module)
    # One for all, so that tied weights stay tied.
    memo: dict[int, Any] = {}
    for part in ("_parameters", "_buffers", "_modules"):
        copied.__dict__[part] = copy.deepcopy(module.__dict__[part], memo)
    memo[id(module)] = copied
    of_every_module = vars(LightningModule())  # hooks and the like, which stay shared
    for name, value in list(copied.__dict__.items()):
        if name not in of_every_module or isinstance(value, MethodType):
            copied.__dict__[name] = _for_copy(value, memo)
    return copied


def _for_copy(value: Any, memo: dict[int, Any]) -> Any:
    """``value`` of a module as its copy holds it; ``memo`` maps ids of its parts to the copies."""
    if id(value) in memo:
        return memo[id(value)]
    # As LightningCLI's configure_optimizers: it must work on the copy.
    if isinstance(value, MethodType) and id(value.__self__) in memo:
        return MethodType(value.__func__, memo[id(value.__self__)])
    if not isinstance(value, _CONTAINERS):
        return value
    copied = memo[id(value)] = copy.copy(value)
    if isinstance(copied, dict):
        for key, one in copied.items():
            copied[key] = _for_copy(one, memo)
    elif isinstance(copied, list | deque):
        for place, one in enumerate(copied):
            copied[place] = _for_copy(one, memo)
    return copied
