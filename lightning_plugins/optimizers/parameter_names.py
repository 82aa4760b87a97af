"""The names of parameters that were handed over without them, and the modules that own them."""

import inspect
import re
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from types import GeneratorType
from typing import Any

from torch import Tensor, nn

_modules: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()

# Put in front of a parameter's own name by DistributedDataParallel, torch.compile, FSDP and
# activation checkpointing.
_WRAPPERS = re.compile(
    r"(?:^|(?<=\.))(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)


@dataclass(frozen=True)
class NamedParameter:
    """A parameter with its name, without wrappers' prefixes, and the module that holds it."""

    name: str
    parameter: Tensor
    owner: nn.Module | None


def register_names(module: nn.Module) -> None:
    """Let optimizers find the names of ``module``'s parameters, also of those it makes later.

    The module is held weakly.
    """
    _modules.add(module)


def named_parameters_of(params: Iterable[Any], needed_by: str) -> list[NamedParameter]:
    """The names and owners of ``params``, each parameter once.

    They come from ``(name, parameter)`` pairs, else from the module whose ``parameters()`` or
    ``named_parameters()`` this is, else from modules given to ``register_names``.

    Raises:
        ValueError: no names can be found, names or parameters appear twice, param groups are given,
            or there are no parameters; ``needed_by`` is named in the message.
    """
    modules = [*_module_behind(params), *_modules]
    given = list(params)
    if not given:
        raise ValueError(f"{needed_by} got no parameters: has the model any, and are they made?")
    if isinstance(given[0], dict):
        raise ValueError(
            f"{needed_by} makes its parameter groups itself: give it model.named_parameters() and "
            "put what the groups were for into `multipliers`, `patterns` or `no_decay_blocks`"
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
    """``name`` without the prefixes of wrappers such as DistributedDataParallel."""
    return _WRAPPERS.sub("", name)


def _module_behind(params: Iterable[Any]) -> list[nn.Module]:
    """The module whose generator this is: ``Module.parameters()`` holds it as ``self``."""
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
            f"{needed_by} tells parameters apart by name, and {missing} of {len(parameters)} came "
            "without one: give it model.named_parameters(), or add "
            "lightning_plugins.callbacks.ParameterNames to the Trainer's callbacks"
        )
    return [(names[id(parameter)], parameter) for parameter in parameters]


def _check_each_once(found: list[NamedParameter], needed_by: str) -> None:
    names, parameters = set(), set()
    for one in found:
        if id(one.parameter) in parameters:
            raise ValueError(
                f"{needed_by} got the parameter {one.name!r} twice: tied weights belong in the "
                "list once, as named_parameters() gives them"
            )
        if one.name in names:
            raise ValueError(
                f"{needed_by} got two parameters named {one.name!r}: names must differ, as those "
                "of one module's named_parameters() do"
            )
        names.add(one.name)
        parameters.add(id(one.parameter))
