"""``lightning-plugins recipes``: list, show and copy the packaged recipes."""

import argparse
import sys
from pathlib import Path

import yaml

from lightning_plugins.recipes.loading import list_recipes, load_recipe
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
        sys.stdout.write(to_yaml(arguments.name))
    else:
        default = arguments.name.replace("/", "_").replace("+", "_") + ".yaml"
        _write_new(Path(arguments.file or default), to_yaml(arguments.name))
    return 0


def to_yaml(name: str) -> str:
    """Return the merged recipe as YAML text; the first line is the command that prints it."""
    header = f"# lightning-plugins recipes show {name}\n"
    return header + yaml.safe_dump(load_recipe(name), sort_keys=False, allow_unicode=True)


def _write_new(path: Path, text: str) -> None:
    if path.exists():
        raise ValueError(f"file {str(path)!r} exists: choose another name or remove the file first")
    write_text_atomically(path, text)
    print(f"wrote {path}; run it with: lightning-plugins fit --config {path}")
