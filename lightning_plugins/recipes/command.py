"""``lightning-plugins recipes``: list, show and copy the packaged recipes."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lightning_plugins.recipes.loading import list_recipes, load_recipe, load_with_places
from lightning_plugins.recipes.sources import Place, plain
from lightning_plugins.reports.writer import write_text_atomically


def main(argv: list[str]) -> int:
    """Run the sub-command and return its exit code.

    Raises:
        ValueError: If there is no such recipe, or the output file exists.
    """
    parser = argparse.ArgumentParser(
        prog="lightning-plugins recipes", description="The packaged YAML recipes."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="list names and summaries")
    show = commands.add_parser("show", help="print the merged YAML, for any LightningCLI")
    show.add_argument("name", help="BASE[+OVERLAY...], for example image/digits+late_sam")
    show.add_argument("--sources", action="store_true", help="add the file and line of each value")
    copy = commands.add_parser("copy", help="write the merged YAML to a new file")
    copy.add_argument("name", help="BASE[+OVERLAY...]")
    copy.add_argument("file", nargs="?", help="the new file (default: the recipe's name)")
    arguments = parser.parse_args(argv)
    if arguments.command == "list":
        recipes = list_recipes()
        width = max(len(recipe.name) for recipe in recipes)
        for recipe in recipes:
            print(f"{recipe.name:<{width}}  {recipe.summary}")
    elif arguments.command == "show":
        write = with_sources if arguments.sources else to_yaml
        sys.stdout.write(write(arguments.name))
    else:
        default = arguments.name.replace("/", "_").replace("+", "_") + ".yaml"
        _write_new(Path(arguments.file or default), to_yaml(arguments.name))
    return 0


def to_yaml(name: str) -> str:
    """Return the merged recipe as YAML text; the first line is the command that prints it."""
    header = f"# lightning-plugins recipes show {name}\n"
    return header + yaml.safe_dump(load_recipe(name), sort_keys=False, allow_unicode=True)


def with_sources(name: str) -> str:
    """Return the merged recipe as YAML text with the file and line of each value as a comment."""
    lines = list(_sourced_lines(load_with_places(name)))
    width = max(len(line) for line, _ in lines)
    header = f"# lightning-plugins recipes show {name} --sources\n"
    return header + "".join(
        f"{line:<{width}}  # {place}\n" if place else f"{line}\n" for line, place in lines
    )


def _sourced_lines(tree: Any) -> Iterator[tuple[str, Place | None]]:
    """Yield each line of a mapping or list, and the place of its value."""
    items = tree.items() if isinstance(tree, dict) else (("-", value) for value in tree)
    for key, value in items:
        start = "- " if isinstance(tree, list) else f"{_scalar(key)}:"
        if isinstance(value, dict | list) and value:
            inner = _sourced_lines(value)
            if isinstance(tree, list):
                first, place = next(inner)
                yield start + first, place
            else:
                yield start, None
            indent = "  " if isinstance(value, dict) or isinstance(tree, list) else ""
            yield from ((indent + line, place) for line, place in inner)
        else:
            space = "" if isinstance(tree, list) else " "
            yield f"{start}{space}{_scalar(plain(value))}", getattr(value, "place", None)


def _scalar(value: Any) -> str:
    value = str(value) if isinstance(value, str) else value  # without its place
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.removesuffix("...\n").strip()


def _write_new(path: Path, text: str) -> None:
    if path.exists():
        raise ValueError(f"file {str(path)!r} exists: choose another name or remove the file first")
    write_text_atomically(path, text)
    print(f"wrote {path}; run it with: lightning-plugins fit --config {path}")
