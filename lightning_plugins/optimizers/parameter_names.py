"""Names and owning modules of the parameters that an optimizer receives."""

import inspect
import re
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from types import GeneratorType
from typing import Any

from torch import Tensor, nn

_modules: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()

# Prefixes that DistributedDataParallel, torch.compile, FSDP and activation checkpointing add to a
# parameter's name.
_WRAPPERS = re.compile(
    r"(?:^|(?<=\.))(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)


@dataclass(frozen=True)
class NamedParameter:
    """A parameter, its name without the prefixes of wrappers, and the module that owns it."""

    name: str
    parameter: Tensor
    owner: nn.Module | None


def register_names(module: nn.Module) -> None:
    """Register a module, so that optimizers find the names of its parameters.

    This includes parameters that the module creates later. The module is referenced weakly.
    """
    _modules.add(module)


def named_parameters_of(params: Iterable[Any], needed_by: str) -> list[NamedParameter]:
    """Return the names and owners of ``params``.

    The names come from ``(name, parameter)`` pairs, otherwise from the module whose
    ``parameters()`` or ``named_parameters()`` generator ``params`` is, otherwise from the modules
    given to ``register_names``.

    Args:
        params: Parameters or ``(name, parameter)`` pairs.
        needed_by: The class that needs the names, for error messages.

    Raises:
        ValueError: The names cannot be found, a name or parameter occurs twice, parameter groups
            are given, or there are no parameters.
    """
    modules = [*_module_behind(params), *_modules]
    given = list(params)
    if not given:
        raise ValueError(f"{needed_by} received no parameters: has the model created them yet?")
    if isinstance(given[0], dict):
        raise ValueError(
            f"{needed_by} creates its own parameter groups: pass model.named_parameters() and "
            "express the groups with `multipliers`, `patterns` or `no_decay_blocks`"
        )
    if not isinstance(given[0], tuple):
        given = _with_names(given, modules, needed_by)
    owners = {
        id(parameter): owner
        for module in modules
        for owner in module.modules()
        for parameter in owner.parameters(recurse=False)
    }
    found = [NamedParameter(plain_name(n), p, owners.get(id(p))) for n, p in given]
    _check_each_once(found, needed_by)
    return found


def plain_name(name: str) -> str:
    """Return ``name`` without the prefixes of wrappers such as DistributedDataParallel."""
    return _WRAPPERS.sub("", name)


def _module_behind(params: Iterable[Any]) -> list[nn.Module]:
    """Return the module of a ``Module.parameters()`` generator, whose frame has it as ``self``."""
    if not isinstance(params, GeneratorType) or params.gi_frame is None:
        return []
    holder = inspect.getgeneratorlocals(params).get("self")
    return [holder] if isinstance(holder, nn.Module) else []


def _with_names(
    parameters: list[Tensor], modules: list[nn.Module], needed_by: str
) -> list[tuple[str, Tensor]]:
    names: dict[int, str] = {}
    for module in modules:
        for name, parameter in module.named_parameters():
            names.setdefault(id(parameter), name)
    missing = sum(id(parameter) not in names for parameter in parameters)
    if missing:
        raise ValueError(
            f"{needed_by} requires parameter names, and {missing} of {len(parameters)} parameters "
            "have none: pass model.named_parameters(), or add "
            "lightning_plugins.callbacks.ParameterNames to the Trainer's callbacks"
        )
    return [(names[id(parameter)], parameter) for parameter in parameters]


def _check_each_once(found: list[NamedParameter], needed_by: str) -> None:
    names, parameters = set(), set()
    for one in found:
        if id(one.parameter) in parameters:
            raise ValueError(
                f"{needed_by} received the parameter {one.name!r} twice: list tied weights once, "
                "as named_parameters() does"
            )
        if one.name in names:
            raise ValueError(
                f"{needed_by} received two parameters named {one.name!r}: names must be unique, as "
                "in one module's named_parameters()"
            )
        names.add(one.name)
        parameters.add(id(one.parameter))
