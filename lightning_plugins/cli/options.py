"""Options of the command line, before jsonargparse parses them."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import yaml


def split_options(
    options: list[str], *names: str, flags: tuple[str, ...] = ()
) -> tuple[dict[str, str], list[str]]:
    """Return the last values of the options ``names`` and ``flags``, and the other arguments.

    Raises:
        ValueError: One of ``names`` has no value.
    """
    found: dict[str, str] = {}
    rest = []
    remaining = iter(options)
    for option in remaining:
        name, equals, value = option.partition("=")
        if name in names:
            found[name] = value if equals else next(remaining, "")
            if not found[name] or found[name].startswith("--"):
                raise ValueError(f"{name} requires a value")
        elif name in flags:
            found[name] = value
        else:
            rest.append(option)
    return found, rest


def option_values(options: list[str], *names: str) -> list[str]:
    """Return every value that is given to one of ``names``, in order."""
    return [value for name, value in named_values(options) if name in names]


def named_values(options: list[str]) -> Iterator[tuple[str, str]]:
    """Yield ``--name`` and value for each option, written with ``=`` or as two arguments."""
    index = 0
    while index < len(options):
        name, equals, value = options[index].partition("=")
        index += 1
        if not name.startswith("-"):
            continue
        if not equals and index < len(options) and not options[index].startswith("--"):
            value = options[index]
            index += 1
        yield name, value


def apply_option(config: dict[str, Any], key: str, text: str) -> None:
    """Set ``key`` (dotted; ``+`` appends to a list) in a nested configuration to a parsed ``text``.

    As for jsonargparse, ``init_args`` may be omitted, and a key below a list changes its last item.
    """
    value = yaml.safe_load(text) if text.strip() else text
    *way, last = key.split(".")
    node: Any = config
    for part in way:
        node = _child(node, part)
    node = _arguments(node, last)
    if not isinstance(node, dict):
        return
    if last.endswith("+"):
        added = value if isinstance(value, list) else [value]
        node[last[:-1]] = [*(node.get(last[:-1]) or []), *added]
    else:
        node[last] = value


def _child(node: Any, part: str) -> Any:
    node = _arguments(node, part)
    if not isinstance(node, dict):
        return None
    child = node.get(part)
    if isinstance(child, list) and child:
        if isinstance(child[-1], str):
            child[-1] = {"class_path": child[-1]}
        return child[-1]
    if isinstance(child, str):
        child = node[part] = {"class_path": child}
    elif child is None:
        child = node[part] = {}
    return child


def _arguments(node: Any, part: str) -> Any:
    """The mapping of ``node`` to which the key ``part`` belongs."""
    of_class = ("class_path", "init_args", "dict_kwargs")
    if isinstance(node, dict) and "class_path" in node and part not in of_class:
        if not isinstance(node.get("init_args"), dict):
            node["init_args"] = {}
        return node["init_args"]
    return node


def changed_values(config: dict[str, Any], options: list[str]) -> Iterator[tuple[str, Any, Any]]:
    """Yield key, value in ``config`` and new value for each option that changes ``config``."""
    changed = deepcopy(config)
    for name, text in named_values(options):
        if name not in ("--ckpt_path", "--config", "-c"):
            apply_option(changed, name.removeprefix("--"), text)
    before, after = dict(_leaves(config)), dict(_leaves(changed))
    for key in {**before, **after}:
        if before.get(key) != after.get(key):
            yield key, before.get(key), after.get(key)


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for name, value in node.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list) and any(isinstance(value, dict) for value in node):
        for index, value in enumerate(node):
            yield from _leaves(value, f"{key}.{index}")
    else:
        yield key, node
