"""Errors for missing optional packages, with the command that installs them."""

import functools
import importlib.metadata
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
_NAME = re.compile(r"[A-Za-z0-9._-]+")


@contextmanager
def requires(*packages: str, by: str, extra: str) -> Iterator[None]:
    """Replace an ``ImportError`` in the block by one that names the packages and their versions.

    Args:
        packages: The packages that the block imports, by their names on the package index. A name
            takes the version that this package declares; a full requirement such as
            ``transformers>=5`` is used unchanged.
        by: The class, argument or feature that requires them.
        extra: The extra of this package that contains them.

    Raises:
        ImportError: The block raised one.
    """
    try:
        yield
    except ImportError as error:
        needed = " and ".join(_requirement(package) for package in packages)
        command = install_command(*packages, extra=extra)
        raise ImportError(f"{by} requires {needed}: {command}", name=error.name) from error


def install_command(*packages: str, extra: str) -> str:
    """Return the ``pip`` command that installs ``packages``; see :func:`requires`."""
    command = f"pip install {' '.join(_quoted(_requirement(package)) for package in packages)}"
    if _is_clone():
        command += f' (or, in the clone, pip install ".[{extra}]")'
    return command


def _requirement(package: str) -> str:
    return _declared().get(package.lower(), package)


def _quoted(requirement: str) -> str:
    return requirement if _NAME.fullmatch(requirement) else f'"{requirement}"'


def _is_clone() -> bool:
    return _PYPROJECT.is_file() and 'name = "lightning-plugins"' in _PYPROJECT.read_text("utf-8")


@functools.cache
def _declared() -> dict[str, str]:
    """The requirements of all extras by package name; empty without pyproject.toml or metadata."""
    if _is_clone():  # the metadata of an editable install is as old as the installation
        extras = tomllib.loads(_PYPROJECT.read_text("utf-8"))["project"]["optional-dependencies"]
        lines = [line for extra in extras.values() for line in extra]
    else:
        try:
            lines = importlib.metadata.requires("lightning-plugins") or []
        except importlib.metadata.PackageNotFoundError:
            lines = []
    found = {}
    for line in lines:
        requirement = line.partition(";")[0].strip()
        if name := _NAME.match(requirement):
            found[name[0].lower()] = requirement
    return found
