"""Finds the key of a configuration that the parser refuses, and says what is wrong with it.

jsonargparse reports every attempt of a union of types, without file and line. This module looks for
the deepest value that its type refuses, after parsing has failed.
"""

import contextlib
import dataclasses
import importlib
import inspect
import io
from argparse import SUPPRESS
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, get_args, get_origin

from jsonargparse import ActionConfigFile, ArgumentParser

from lightning_plugins.cli.types_in_words import in_words, options_of, returned_class
from lightning_plugins.inputs.messages import quoted
from lightning_plugins.inputs.nearest import nearest

Way = tuple[str | int, ...]
_NULL, _EMPTY = object(), object()
_BUILT = ("optimizer", "lr_scheduler")
_OF_CLASS = ("class_path", "init_args", "dict_kwargs")


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is wrong at a key.

    Attributes:
        way: The keys and indices that lead to the value.
        text: The error.
        candidates: The names that are possible in place of the last key, if it is unknown.
    """

    way: Way
    text: str
    candidates: tuple[str, ...] = ()


def find_problem(
    parser: ArgumentParser, config: Mapping[str, Any], is_strict: bool = False
) -> Problem | None:
    """Return the first problem of a configuration, or None if none is found.

    Args:
        parser: The parser of the subcommand.
        config: The merged configuration, without places.
        is_strict: Whether null is a problem where the type does not include it, and an empty
            mapping in place of an optimizer or schedule. jsonargparse accepts both.
    """
    if is_strict:
        config = _with_marks(config)
    return _in_group(_schema(parser), config, ())


def _schema(parser: ArgumentParser) -> dict[str, Any]:
    """The types of all keys: nested mappings for dotted names."""
    schema: dict[str, Any] = {}
    for action in parser._actions:
        is_config_file = isinstance(action, ActionConfigFile)  # not an argument of that name
        if is_config_file or action.dest in ("help", SUPPRESS) or action.dest.endswith(".help"):
            continue
        *way, last = action.dest.split(".")
        node = schema
        for part in way:
            inner = node.get(part)
            node[part] = node = inner if isinstance(inner, dict) else {}
        hint = getattr(action, "_typehint", None)
        if not isinstance(node.get(last), dict):
            node[last] = hint if hint is not None else _plain_type(action)
    return schema


def _plain_type(action: Any) -> Any:
    return action.type if isinstance(action.type, type) else Any


def _in_group(schema: Mapping[str, Any], values: Any, way: Way) -> Problem | None:
    if not isinstance(values, Mapping):
        return Problem(way, f"expected a mapping, got {_got(values)}")
    for key, value in values.items():
        name = key.removesuffix("+") if isinstance(key, str) else key
        here = (*way, key)
        if name not in schema:
            candidates = tuple(map(str, schema))
            return Problem(here, "unknown key", candidates)
        hint = schema[name]
        if isinstance(hint, dict):
            problem = _in_group(hint, value, here)
        elif name != key:
            items = value if isinstance(value, list) else [value]
            problem = _first(_in_value(hint, [item], here) for item in items)
        else:
            problem = _in_value(hint, value, here)
        if problem is not None:
            return problem
    return None


def _with_marks(node: Any, key: Any = None) -> Any:
    """Replace what jsonargparse accepts for every class: null, and an empty mapping."""
    if node == {} and key in _BUILT:
        return _EMPTY
    if isinstance(node, dict):
        return {key: _with_marks(value, key) for key, value in node.items()}
    if isinstance(node, list):
        return [_with_marks(value) for value in node]
    return _NULL if node is None else node


def _in_value(hint: Any, value: Any, way: Way) -> Problem | None:
    if value is _NULL:
        is_optional = hint is Any or {type(None), Any} & set(options_of(hint))
        return None if is_optional else Problem(way, f"expected {in_words(hint)}, got null")
    if value is _EMPTY:
        return Problem(way, f"expected {in_words(hint)}, got an empty mapping")
    if hint is Any or hint is inspect.Parameter.empty or _is_accepted(hint, value):
        return None
    options = options_of(hint)
    if isinstance(value, list):
        for option in options:
            members = [part for part in get_args(option) if part is not Ellipsis]
            if get_origin(option) and members and not returned_class(option):
                problem = _first(
                    _in_value(members[min(i, len(members) - 1)], item, (*way, i))
                    for i, item in enumerate(value)
                )
                if problem is not None:
                    return problem
    if isinstance(value, dict):
        for option in options:
            members = list(get_args(option))
            kind = get_origin(option)
            if inspect.isclass(kind) and issubclass(kind, Mapping) and len(members) == 2:
                problem = _first(
                    _in_value(members[1], inner, (*way, key)) for key, inner in value.items()
                )
                if problem is not None:
                    return problem
    bases = [base for base in map(_built_class, options) if base is not None]
    if bases and isinstance(value, dict | str):
        return _in_class(bases, hint, value, way)
    return Problem(way, f"expected {in_words(hint)}, got {_got(value)}")


def _built_class(option: Any) -> type | None:
    if returned := returned_class(option):
        return returned
    for part in get_args(option):  # a list of callbacks is also given as one of them
        if get_origin(option) in (list,) and (inner := _built_class(part)):
            return inner
    is_class = inspect.isclass(option) and get_origin(option) is None
    if not is_class or option.__module__ in ("builtins", "torch", "pathlib"):
        return None
    return option


def _in_class(bases: list[type], hint: Any, value: Any, way: Way) -> Problem | None:
    given = {"class_path": value} if isinstance(value, str) else value
    fields = [base for base in bases if dataclasses.is_dataclass(base)]
    if fields and "class_path" not in given:
        return _in_arguments(fields[0], 0, given, way)
    unknown = next((key for key in given if key not in _OF_CLASS), None)
    if "class_path" not in given or unknown is not None:
        if unknown is not None:
            return Problem((*way, unknown), "unknown key", _OF_CLASS)
        return Problem(way, f"expected {in_words(hint)}, got no class_path")
    path = given["class_path"]
    here = way if isinstance(value, str) else (*way, "class_path")
    cls = _class(path, bases) if isinstance(path, str) else None
    if cls is None:
        kinds = " or ".join(base.__name__ for base in bases)
        text = f"no class {quoted(path)} of {kinds}"
        return Problem(here, text + nearest(str(path).rpartition(".")[2], _names_of(bases)))
    built = cls if inspect.isclass(cls) else getattr(cls, "__annotations__", {}).get("return")
    if not (inspect.isclass(built) and any(_is_subclass(built, base) for base in bases)):
        names = " or ".join(base.__name__ for base in bases)
        return Problem(here, f"{quoted(path)} is no {names}")
    positional = (_given_by_the_caller(option) for option in options_of(hint))
    arguments = given.get("init_args") or {}
    return _in_arguments(cls, max(positional, default=0), arguments, (*way, "init_args"))


def _is_subclass(cls: type, base: type) -> bool:
    try:
        return issubclass(cls, base)
    except TypeError:  # of a protocol, which says nothing about classes
        return True


def _given_by_the_caller(option: Any) -> int:
    """The number of arguments of a callable such as ``Callable[[Iterable], Optimizer]``."""
    has_list = returned_class(option) is not None and isinstance(get_args(option)[0], list)
    return len(get_args(option)[0]) if has_list else 0


def _in_arguments(cls: Any, skip: int, arguments: Any, way: Way) -> Problem | None:
    parser = ArgumentParser(exit_on_error=False)
    positional: Any = {skip} if skip else set()
    with contextlib.suppress(Exception):
        if inspect.isclass(cls):
            parser.add_class_arguments(cls, None, fail_untyped=False, skip=positional)
        else:
            parser.add_function_arguments(cls, None, fail_untyped=False, skip=positional)
    schema = _schema(parser)
    problem = _in_group(schema, arguments, way)
    if problem is not None or not isinstance(arguments, Mapping):
        return problem
    parameters = inspect.signature(cls).parameters
    needed = [name for name, p in parameters.items() if p.default is p.empty and name in schema]
    missing = [name for name in needed if name not in arguments]
    name = getattr(cls, "__name__", "it")
    return Problem(way, f"{name} requires the argument {missing[0]}") if missing else None


def _class(path: str, bases: list[type]) -> Any:
    module, _, name = path.rpartition(".")
    if not module:
        return next((cls for cls in _subclasses(bases) if cls.__name__ == name), None)
    try:
        found = getattr(importlib.import_module(module), name, None)
    except (ImportError, ValueError, TypeError):  # of a name such as "../a.B", too
        return None
    return found if callable(found) else None


def _names_of(bases: list[type]) -> set[str]:
    return {cls.__name__ for cls in _subclasses(bases)}


def _subclasses(bases: list[type]) -> Iterator[type]:
    for base in bases:
        yield base
        yield from _subclasses(base.__subclasses__())


def _is_accepted(hint: Any, value: Any) -> bool:
    parser = ArgumentParser(exit_on_error=False)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            parser.add_argument("--value", type=hint)
            parser.parse_object({"value": deepcopy(value)})  # which changes lists in place
    except Exception:
        return False
    return True


def _first(problems: Iterator[Problem | None]) -> Problem | None:
    return next(filter(None, problems), None)


def _got(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "null"
    return quoted(value)
