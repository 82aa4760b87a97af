"""Imports of the user's own modules from the current folder, and of nothing else in it.

The folder in which a command runs may hold files of other people, for example a downloaded data
set. On ``sys.path``, a file ``pandas.py`` in it would run wherever an optional package is looked
for.
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import FrameType, ModuleType
from typing import Any

_DOTTED = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)+")
# Read by processes that start by importing the command, such as those of multiprocessing.
_VARIABLE = "LIGHTNING_PLUGINS_TYPED_MODULES"


class TypedModules(MetaPathFinder):
    """Finds modules that the user named, and what these import, in one folder.

    It is the last finder, so an installed package always wins.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._names: set[str] = set()
        self._loaded: set[str] = set()

    def add(self, values: Iterable[Any]) -> None:
        """Allow the modules of the dotted paths among ``values``, such as ``my_package.Model``."""
        names = {text.partition(".")[0] for text in values if _is_dotted(text)}
        if names - self._names:
            self._names |= names
            os.environ[_VARIABLE] = os.pathsep.join([self.folder, *sorted(self._names)])

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a top-level module that is allowed; a package finds its own submodules."""
        if path is not None or not (fullname in self._names or self._is_wanted_by_own_module()):
            return None
        spec = PathFinder.find_spec(fullname, [self.folder], target)
        if spec is not None:
            self._loaded.add(fullname)
        return spec

    def _is_wanted_by_own_module(self) -> bool:
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            module = str(frame.f_globals.get("__name__", ""))
            if module.partition(".")[0] != "importlib":
                return module.partition(".")[0] in self._loaded
            frame = frame.f_back
        return False


def typed_modules() -> TypedModules:
    """Return the finder for the current folder, which is installed on first use."""
    folder = os.getcwd()
    for finder in [f for f in sys.meta_path if isinstance(f, TypedModules)]:
        if finder.folder == folder:
            return finder
        sys.meta_path.remove(finder)  # of a previous command in this process
    finder = TypedModules(folder)
    sys.meta_path.append(finder)
    return finder


def inherit_typed_modules() -> None:
    """Install the finder of the parent process, if there is one."""
    folder, *names = os.environ.get(_VARIABLE, "").split(os.pathsep)
    if names:
        finder = TypedModules(folder)
        finder.add(f"{name}.x" for name in names)
        sys.meta_path.append(finder)


def remove_current_folder() -> None:
    """Remove the current folder from ``sys.path``, where ``python -m`` puts it first.

    An empty part of ``PYTHONPATH``, such as after a trailing colon, puts it there too. The folder
    stays if this package itself was found in it, or if ``PYTHONPATH`` names it.
    """
    package_folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    current = os.path.realpath(os.getcwd())
    if current == os.path.realpath(package_folder):
        return
    if os.path.realpath(sys.path[0] or current) == current:
        del sys.path[0]
    named = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    if current not in map(os.path.realpath, named):
        sys.path[:] = [part for part in sys.path if os.path.realpath(part or current) != current]


def is_command(arguments: Sequence[str]) -> bool:
    """Return whether the arguments of Python, ``sys.orig_argv``, run a module of this package."""
    for place, argument in enumerate(arguments):
        if argument.startswith("-m"):
            module = argument[2:] or "".join(arguments[place + 1 : place + 2])
            return module.partition(".")[0] == __package__
    return False


def strings_in(value: Any) -> Iterator[str]:
    """Yield every string in nested lists and mappings, keys excluded."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from strings_in(part)
    elif isinstance(value, list):
        for part in value:
            yield from strings_in(part)


def _is_dotted(value: Any) -> bool:
    return isinstance(value, str) and len(value) < 500 and bool(_DOTTED.fullmatch(value))
