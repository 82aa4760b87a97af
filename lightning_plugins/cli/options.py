"""Options of the command line, before jsonargparse parses them."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import yaml

from lightning_plugins.recipes.sources import plain


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


def stray_words(options: list[str]) -> list[str]:
    """Return the arguments that are neither options nor their values."""
    stray, index = [], 0
    while index < len(options):
        is_option = options[index].startswith("-")
        if not is_option:
            stray.append(options[index])
        takes_next = is_option and "=" not in options[index]
        index += 1
        if takes_next and index < len(options) and not options[index].startswith("--"):
            index += 1
    return stray


def apply_option(
    config: dict[str, Any], key: str, text: str, wrap: Callable[[Any], Any] = lambda value: value
) -> None:
    """Set ``key`` (dotted; ``+`` appends to a list) in a nested configuration to a parsed ``text``.

    As for jsonargparse, ``init_args`` may be omitted, and a key below a list changes its last item.

    Args:
        config: The configuration, with or without places; it is changed.
        key: The name of the option without dashes.
        text: Its value, in YAML.
        wrap: Called with the value that is stored.
    """
    try:
        value = yaml.safe_load(text) if text.strip() else text
    except yaml.YAMLError:
        value = text
    *way, last = key.split(".")
    node: Any = config
    for part in way:
        node = _child(node, part)
    node = _arguments(node, last)
    if not isinstance(node, dict):
        return
    if last.endswith("+"):
        added = value if isinstance(value, list) else [value]
        present = node.get(last[:-1])
        present = present if isinstance(present, list) else []
        node[last[:-1]] = [*present, *map(wrap, added)]
    else:
        node[last] = wrap(value)


def _child(node: Any, part: str) -> Any:
    node = _arguments(node, part)
    if not isinstance(node, dict):
        return None
    child = node.get(part)
    if isinstance(child, list) and child:
        child[-1] = _opened(child[-1])
        return child[-1]
    node[part] = _opened(child)
    return node[part]


def _opened(child: Any) -> Any:
    """A class name as a mapping with its ``class_path``, and null as an empty mapping."""
    value = plain(child)
    if isinstance(value, str):
        return {"class_path": child}
    return {} if value is None else child if isinstance(child, dict | list) else value


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
