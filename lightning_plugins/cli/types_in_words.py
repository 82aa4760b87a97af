"""What a type annotation expects, in words."""

import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import torch

_SCALARS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    type(None): "null",
}


def options_of(hint: Any) -> list[Any]:
    """Return the members of a union, or the type itself."""
    if get_origin(hint) in (Union, types.UnionType):
        return [member for part in get_args(hint) for member in options_of(part)]
    hint = getattr(hint, "__supertype__", hint)
    return [hint]


def in_words(hint: Any) -> str:
    """Return for example ``a whole number or null`` for ``int | None``."""
    options = options_of(hint)
    choices = [
        str(choice)
        for option in options
        if get_origin(option) is Literal
        for choice in get_args(option)
    ]
    options = [option for option in options if get_origin(option) is not Literal]
    if float in options and int in options:
        options.remove(int)
    has_scalar = any(option in _SCALARS for option in options if isinstance(option, type))
    words = [_words(option) for option in options if not (has_scalar and option is torch.Tensor)]
    if choices:
        words.insert(0, f"one of {', '.join(dict.fromkeys(choices))}")
    return " or ".join(dict.fromkeys(words))


def _words(option: Any) -> str:
    origin = get_origin(option)
    if isinstance(option, type) and option in _SCALARS:
        return _SCALARS[option]
    if returned := returned_class(option):
        return f"a class of {returned.__name__} such as `class_path: ...`"
    if origin is Callable or option is Callable:
        return "the dotted name of a function"
    kind = origin or option
    if not isinstance(kind, type):
        return "another value"
    if issubclass(kind, Mapping):
        return "a mapping"
    if issubclass(kind, Path) or "Path" in kind.__name__:
        return "a path"
    if kind is Iterable or (issubclass(kind, Iterable) and kind is not torch.Tensor and origin):
        return "a list"
    return f"a class of {kind.__name__} such as `class_path: ...`"


def returned_class(option: Any) -> type | None:
    """Return the class that a callable builds, for example an optimizer, or None."""
    if get_origin(option) is not Callable and get_origin(option) is not type(Callable):
        origin = get_origin(option)
        if origin is None or origin.__name__ != "Callable":
            return None
    arguments = get_args(option)
    for returned in options_of(arguments[-1]) if arguments else ():
        if inspect.isclass(returned) and returned not in _SCALARS:
            return returned
    return None
