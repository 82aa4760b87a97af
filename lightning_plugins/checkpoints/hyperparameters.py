"""Checks of the hyperparameters in a checkpoint, before anything is imported or built from them."""

import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Literal, get_args, get_origin, get_type_hints

from torch import Tensor

from lightning_plugins.inputs.messages import quoted

CheckpointStrings = Mapping[str, re.Pattern[str] | AbstractSet[str]]
"""Parameter -> pattern, or set, of the strings that may come from a checkpoint."""

WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""A name without the characters of paths, addresses and modules."""

CLASS_KEY, BUILDER_KEY = "_class_path", "_instantiator"
_BUILDERS = {
    "lightning.pytorch.cli.instantiate_module",
    "pytorch_lightning.cli.instantiate_module",
}
_DEEPEST = 8


def check_hyperparameters(
    stored: Mapping[str, Any],
    cls: type,
    *,
    given: Mapping[str, Any] | None = None,
    what: str,
    remedy: str,
) -> None:
    """Check that hyperparameters of a checkpoint are plain data that name nothing.

    Allowed are None, booleans, numbers and tensors, the strings of a ``Literal``, and lists and
    mappings of them. A parameter whose strings name no file, class, server, or variable can be
    listed in the class attribute ``checkpoint_strings``: name -> pattern, or set of strings. Any
    other value must be the default, or be given by the user too.

    Args:
        stored: The hyperparameters.
        cls: The class whose constructor receives them.
        given: Arguments that the user gave, which replace those of the checkpoint.
        what: Path of the checkpoint, for the message.
        remedy: How to give an argument, for the message; ``{name}`` is replaced by its name.

    Raises:
        ValueError: A hyperparameter is not allowed; the message names it.
    """
    given = given or {}
    parameters = _parameters(cls)
    takes_more = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    hints = _hints(cls)
    listed: CheckpointStrings = getattr(cls, "checkpoint_strings", {})
    _check_builder(stored, cls, what)
    for name, value in stored.items():
        if name in (CLASS_KEY, BUILDER_KEY):
            continue
        parameter = parameters.get(name) if isinstance(name, str) else None
        if parameter is None and not (takes_more and _is_name(name)):
            raise ValueError(
                f"{what}: {cls.__name__} has no hyperparameter {quoted(name)}; the checkpoint is "
                "of another class or was changed"
            )
        known = [given[name]] if name in given else []
        if parameter is not None and parameter.default is not parameter.empty:
            known.append(parameter.default)
        strings = [*_literals(hints.get(name)), *_as_list(listed.get(name))]
        if not (_is_plain(value, strings) or any(_equal(value, other) for other in known)):
            raise ValueError(
                f"{what}: the hyperparameter {name}={quoted(value)} could name a file, class, "
                "server or variable, which this package does not take from a checkpoint; if you "
                f"trust it, {remedy.format(name=name)}"
            )


def imported_class(path: object) -> Any:
    """Return the class at a dotted path if its module is already imported, else None."""
    if not isinstance(path, str):
        return None
    module, _, name = path.rpartition(".")
    return getattr(sys.modules.get(module), name, None) if name.isidentifier() else None


def _check_builder(stored: Mapping[str, Any], cls: type, what: str) -> None:
    if (builder := stored.get(BUILDER_KEY)) is not None and builder not in _BUILDERS:
        raise ValueError(
            f"{what}: it names {quoted(builder)} to build the module, which is not in the "
            "allowlist; the checkpoint was not written by Lightning"
        )
    if (path := stored.get(CLASS_KEY)) is not None and imported_class(path) is not cls:
        raise ValueError(
            f"{what}: it is a checkpoint of {quoted(path)}, not of {cls.__name__}; a checkpoint "
            "cannot select a class"
        )


def _parameters(cls: type) -> dict[str, inspect.Parameter]:
    own = dict(inspect.signature(cls).parameters)
    return {n: p for n, p in own.items() if p.kind is not p.VAR_POSITIONAL}


def _hints(cls: Any) -> dict[str, Any]:
    try:
        return get_type_hints(cls.__init__)
    except (NameError, TypeError, AttributeError):
        return {}


def _literals(hint: Any) -> list[Any]:
    """Return the strings of every ``Literal`` inside a type."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [value for part in get_args(hint) for value in _literals(part)]


def _as_list(strings: re.Pattern[str] | AbstractSet[str] | None) -> list[Any]:
    if strings is None:
        return []
    return [strings] if isinstance(strings, re.Pattern) else list(strings)


def _is_plain(value: Any, strings: Sequence[Any], depth: int = 0) -> bool:
    if value is None or isinstance(value, (bool, int, float, Tensor)):
        return True
    if isinstance(value, str):
        return any(
            other.fullmatch(value) if isinstance(other, re.Pattern) else other == value
            for other in strings
        )
    if depth == _DEEPEST:
        return False
    if isinstance(value, (list, tuple, set)):
        return all(_is_plain(part, strings, depth + 1) for part in value)
    if isinstance(value, Mapping):
        return all(
            (isinstance(key, int) or _is_name(key)) and _is_plain(part, strings, depth + 1)
            for key, part in value.items()
        )
    return False


def _is_name(key: object) -> bool:
    """Whether a key is an argument's name and does not describe an object to build."""
    return (
        isinstance(key, str)
        and key.isidentifier()
        and not key.startswith("_")
        and key not in ("class_path", "init_args", "dict_kwargs", "auto_map")
    )


def _equal(value: Any, other: Any) -> bool:
    """Compare plain values; lists equal tuples, since YAML has no tuples."""
    if isinstance(value, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(value) == len(other) and all(map(_equal, value, other))
    if isinstance(value, Mapping) and isinstance(other, Mapping):
        return value.keys() == other.keys() and all(_equal(value[k], other[k]) for k in value)
    plain = (str, bool, int, float, type(None))
    return isinstance(value, plain) and type(value) is type(other) and value == other
