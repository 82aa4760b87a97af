"""Reads YAML with the file and line of each value."""

import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any

import yaml

from lightning_plugins.inputs.messages import quoted
from lightning_plugins.inputs.structured_text import check_yaml


@dataclass(frozen=True)
class Place:
    """A line of a file; a packaged recipe stands for its file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Sourced:
    """A scalar or empty collection with its place. Two are equal if their values are."""

    value: Any
    place: Place = field(compare=False)


class Key(str):
    """A key of a mapping with its place."""

    place: Place


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, and numbers such as ``1e-3``, as jsonargparse reads them."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+"),
    list("-+.0123456789"),
)


def read_mapping(text: str, file: str) -> dict[str, Any]:
    """Return a YAML mapping whose keys are :class:`Key` and whose scalars are :class:`Sourced`.

    Args:
        text: One YAML document.
        file: The name for messages and places.

    Raises:
        ValueError: The text is not YAML, is empty or no mapping, or a key occurs twice. The message
            contains file and line.
    """
    try:
        check_yaml(text, file)
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise ValueError(f"{file}: the file is empty; expected options such as `trainer: ...`")
        if not isinstance(node, yaml.MappingNode):
            got = quoted(node.value) if isinstance(node.value, str) else "a list"
            raise ValueError(
                f"{file}: expected a mapping of options such as `trainer: ...`, got {got}"
            )
        tree: dict[str, Any] = _tree(loader, node, file)
        return tree
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{file}:{mark.line + 1}" if mark else file
        line = text.split("\n")[mark.line : mark.line + 1] if mark else []
        raise ValueError(f"{place}: invalid YAML: {_problem(error, *line)}") from error
    except (yaml.YAMLError, RecursionError, LookupError, AttributeError, OverflowError) as error:
        raise ValueError(f"{file}: invalid YAML: {' '.join(str(error).split())[:150]}") from error


def _problem(error: yaml.MarkedYAMLError, line: str = "") -> str:
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "a tab; indent with spaces"
    return " ".join(part for part in (error.context, error.problem) if part)


def _tree(loader: _Loader, node: yaml.Node, file: str) -> Any:
    place = Place(file, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode) and node.value:
        return _mapping(loader, node, file)
    if isinstance(node, yaml.SequenceNode) and node.value:
        return [_tree(loader, item, file) for item in node.value]
    return Sourced(loader.construct_object(node, deep=True), place)


def _mapping(loader: _Loader, node: yaml.MappingNode, file: str) -> dict[str, Any]:
    lines: dict[Hashable, int] = {}
    for key_node, _ in node.value:  # before `<<` is expanded, whose keys may occur again
        line = key_node.start_mark.line + 1
        name = key_node.value if isinstance(key_node.value, str) else str(line)
        if name != "<<" and name in lines:
            raise ValueError(
                f"{file}:{line}: the key {quoted(name)} occurs twice, first in line {lines[name]}"
            )
        lines[name] = line
    loader.flatten_mapping(node)
    tree = {}
    for key_node, value_node in node.value:
        value = loader.construct_object(key_node, deep=True)
        if not isinstance(value, str | int | float | None):
            raise ValueError(
                f"{file}:{key_node.start_mark.line + 1}: the key {quoted(value)} is not a word"
            )
        key: Any = value
        if isinstance(value, str):
            key = Key(value)
            key.place = Place(file, key_node.start_mark.line + 1)
        tree[key] = _tree(loader, value_node, file)
    return tree


def plain(tree: Any) -> Any:
    """Return the tree without places."""
    if isinstance(tree, dict):
        return {str(k) if isinstance(k, str) else k: plain(v) for k, v in tree.items()}
    if isinstance(tree, list):
        return [plain(value) for value in tree]
    return tree.value if isinstance(tree, Sourced) else tree


def place_of(tree: Any, way: Iterable[str | int]) -> Place | None:
    """Return the place of the value at ``way``, or of the last key on the way that has one."""
    place = None
    for step in way:
        if isinstance(tree, dict) and step in tree:
            key = next(key for key in tree if key == step)
            place = getattr(key, "place", place)
            tree = tree[step]
        elif isinstance(tree, list) and isinstance(step, int) and step < len(tree):
            tree = tree[step]
        else:
            break
        place = getattr(tree, "place", place)
        first = next(iter(tree), None) if isinstance(tree, dict) else None
        inner = getattr(first, "place", place)
        if place is not None and inner is not None and inner.file != place.file:
            place = inner  # of the file that replaced the value, but not the key
    return place
