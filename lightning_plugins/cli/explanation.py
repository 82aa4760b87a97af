"""Says which key of which file, or which option, an error concerns."""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from jsonargparse import ArgumentParser

from lightning_plugins.cli.configuration import config_tree
from lightning_plugins.cli.diagnosis import Problem, Way, find_problem
from lightning_plugins.cli.options import apply_option, named_values, stray_words
from lightning_plugins.cli.run_folders import Run
from lightning_plugins.inputs.nearest import nearest
from lightning_plugins.recipes import merge
from lightning_plugins.recipes.sources import Place, Sourced, place_of, plain


class OptionPlace(Place):
    """An option of the command line."""

    def __str__(self) -> str:
        return self.file


def merged_tree(options: list[str], run: Run | None = None) -> dict[str, Any]:
    """Return all ``--config`` values and options as one configuration with places.

    Args:
        options: The options of the command.
        run: The run whose configuration ``--config`` contains; places are then in its file.
    """
    tree: dict[str, Any] = {}
    for name, text in named_values(options):
        if name in ("--config", "-c"):
            tree = merge(tree, config_tree(text) if run is None else run.config())
        else:
            key = name.lstrip("-")
            place = OptionPlace(f"--{key}", 0)
            apply_option(tree, key, text, partial(Sourced, place=place))
    return tree


def refused_key(parser: ArgumentParser, options: list[str], tree: dict[str, Any]) -> str | None:
    """Return the message for a configuration that ``parser`` refuses, or None."""
    for word in stray_words(options):
        return f"unexpected argument {word!r}; did you mean --config {word}?"
    problem = find_problem(parser, plain(tree))
    return None if problem is None else _message(problem, tree, parser)


def _message(problem: Problem, tree: dict[str, Any], parser: ArgumentParser) -> str:
    place = place_of(tree, problem.way) or _first_place(tree)
    short = _option(problem.way)
    if isinstance(place, OptionPlace):
        *parents, last = short.split(".")
        prefix = "--" + "".join(f"{part}." for part in parents)
        name, where = "unknown option", place.file if not problem.candidates else f"--{short}"
    else:
        last = str(problem.way[-1]) if problem.way else ""
        prefix, name = "", "unknown key"
        where = f"{place}: {_dotted(problem.way)}" if place else _dotted(problem.way)
    if not problem.candidates:
        return f"{where}: {problem.text}"
    hint = nearest(last.removesuffix("+"), problem.candidates, prefix)
    if not hint and len(problem.way) == 1:  # for example --max_epochs
        found = [action.dest for action in parser._actions if action.dest.endswith(f".{last}")]
        hint = f"; did you mean {prefix}{found[0]}?" if found else ""
    return f"{where}: {name}{hint}"


def located(message: str, parser: ArgumentParser, tree: dict[str, Any]) -> str:
    """Return ``message`` after the place of the value that it names.

    If it names none, the first key is given whose value is null without being optional.
    """
    if required := re.search(r"arguments are required: (?:.*\.)?(\w+)$", message):
        key = required[1]
        place = place_of(tree, [key]) or _first_place(tree)
        remedy = f"{key}: required: a class such as `class_path: ...`; or start from a recipe"
        return f"{place}: {remedy}" if place else remedy
    best: tuple[int, Way] | None = None
    for way, value in _leaves(plain(tree)):
        names = [part for part in way if isinstance(part, str) and part not in ("init_args",)]
        key = names[-1].removesuffix("+") if names else ""
        text = value if isinstance(value, str) and len(value) > 2 else None
        has_text = text is not None and _has_word(text, message)
        if not key or not (has_text or _has_word(key, message)):
            continue
        score = 2 * len(key) * _has_word(key, message) + len(text or "") * has_text
        score += 100 * message.startswith(f"{key}=") + 50 * (f"{key}={value!r}" in message)
        if best is None or score > best[0]:
            best = score, way
    if best is None:
        problem = find_problem(parser, plain(tree), is_strict=True)
        return message if problem is None else _message(problem, tree, parser)
    place, key = place_of(tree, best[1]), _dotted(best[1])
    if place is None:
        return message
    return f"{place}: {message}" if isinstance(place, OptionPlace) else f"{place}: {key}: {message}"


def _option(way: Way) -> str:
    """The name of the option for a key."""
    implied = ("init_args", "dict_kwargs")
    return ".".join(part for part in way if isinstance(part, str) and part not in implied)


def _first_place(tree: dict[str, Any]) -> Place | None:
    return place_of(tree, [next(iter(tree), "")])


def _has_word(word: str, text: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(word)}(?!\w)", text) is not None


def _leaves(node: Any, way: Way = ()) -> Iterator[tuple[Way, Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, (*way, key))
    elif isinstance(node, list) and node:
        for index, value in enumerate(node):
            yield from _leaves(value, (*way, index))
    else:
        yield way, node


def _dotted(way: Way) -> str:
    return ".".join(map(str, way))
