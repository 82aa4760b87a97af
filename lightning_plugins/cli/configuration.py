"""The values of ``--config``: a recipe, a file or YAML."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

from lightning_plugins.current_folder import strings_in, typed_modules
from lightning_plugins.inputs import check_yaml
from lightning_plugins.recipes.loading import load_with_places, read_file, with_recipe
from lightning_plugins.recipes.sources import plain, read_mapping


def with_recipes(arguments: list[str]) -> list[str]:
    """Return ``arguments`` with each ``--config RECIPE`` replaced by the recipe's merged YAML.

    A value that is a file or contains YAML is unchanged.
    """
    replaced = []
    is_config = False
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if is_config:
            argument = _contents(argument)
        elif equals and flag in ("--config", "-c"):
            argument = f"{flag}={_contents(value)}"
        is_config = not is_config and argument in ("--config", "-c")
        replaced.append(argument)
    return replaced


def _contents(config: str) -> str:
    tree = config_tree(config)
    is_given_to_the_parser = os.path.isfile(config) or "\n" in config or ":" in config
    if is_given_to_the_parser and "recipe" not in _own_keys(config):
        return config
    return yaml.safe_dump(plain(tree), sort_keys=False)


def config_tree(config: str) -> dict[str, Any]:
    """Return the configuration of a ``--config`` value: a recipe, a file or YAML, with places.

    Raises:
        ValueError: There is no such recipe or file, or it is invalid.
    """
    if os.path.isfile(config):
        return read_file(config)
    if "\n" in config or ":" in config:
        return with_recipe(read_mapping(config, "--config"))
    return load_with_places(config)


def _own_keys(config: str) -> dict[str, Any]:
    if os.path.isfile(config):
        return read_mapping(Path(config).read_text("utf-8-sig"), config)
    return read_mapping(config, "--config")


@contextmanager
def bounded_yaml() -> Iterator[None]:
    """Check the depth and size of all YAML in the block, and note the class paths in it."""
    load = get_loader("yaml")

    def bounded(text: str) -> Any:
        check_yaml(text, "the configuration")
        value = load(text)
        typed_modules().add(strings_in(value))
        return value

    set_loader("yaml", bounded, (yaml.YAMLError,))
    try:
        yield
    finally:
        set_loader("yaml", load, (yaml.YAMLError,))
