"""Strategies for both import names of Lightning: ``lightning.pytorch`` and ``pytorch_lightning``.

The two packages hold the same code as different classes. Our strategies derive from those of
``lightning.pytorch``. A Trainer of ``pytorch_lightning`` accepts them as virtual subclasses; when
it passes its accelerator, the strategy changes to a class with the same methods whose bases are
those of ``pytorch_lightning``.
"""

import copyreg
import importlib
import sys
from abc import ABCMeta
from collections.abc import Callable
from functools import cache, partial
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from lightning_plugins._import_names import root_of

_NAMES = {"lightning.pytorch": "pytorch_lightning", "lightning.fabric": "lightning_fabric"}


class BothImportNames:
    """Base class of strategies for both import names; comes before the class of Lightning."""

    _accelerator: Any

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        when_imported("pytorch_lightning.strategies", partial(_accept_in_other_root, cls))

    @property
    def accelerator(self) -> Any:
        """The accelerator, which the Trainer sets before it sets anything else."""
        return self._accelerator

    @accelerator.setter
    def accelerator(self, accelerator: Any) -> None:
        if root_of(accelerator) == "pytorch_lightning" != root_of(self):
            cls: Any = type(self)
            self.__class__ = _adapted(cls)
        self._accelerator = accelerator


def _accept_in_other_root(cls: type) -> None:
    for base in cls.__mro__:
        if (other := _counterpart(base)) is not base and isinstance(other, ABCMeta):
            other.register(cls)


@cache
def _adapted(cls: type) -> type:
    return _OtherBases(cls.__name__, (cls,), {"__module__": cls.__module__, "__doc__": cls.__doc__})


class _OtherBases(ABCMeta):
    """Replaces the bases from ``lightning`` in the order in which methods are looked up."""

    def mro(cls) -> list[type]:
        own = cls.__bases__[0].__mro__
        return [cls, *(_counterpart(base) for base in own)]


def _reduce_class(cls: Any) -> Any:
    return _adapted, (cls.__bases__[0],)


copyreg.pickle(_OtherBases, _reduce_class)


def _counterpart(base: type) -> type:
    for own, other in _NAMES.items():
        if base.__module__.startswith(f"{own}."):
            module = importlib.import_module(other + base.__module__.removeprefix(own))
            return getattr(module, base.__name__)
    return base


def when_imported(name: str, action: Callable[[], None]) -> None:
    """Call ``action`` as soon as the program has imported the module ``name``, or now."""
    if name in sys.modules:
        action()
        return
    watcher = next((one for one in sys.meta_path if isinstance(one, _Watcher)), None)
    if watcher is None:
        watcher = _Watcher()
        sys.meta_path.insert(0, watcher)
    watcher.actions.setdefault(name, []).append(action)


class _Watcher:
    """Finds modules in the ordinary way, and calls functions after a module was executed."""

    def __init__(self) -> None:
        self.actions: dict[str, list[Callable[[], None]]] = {}

    def find_spec(
        self, name: str, path: Any = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self.actions:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_act(module: ModuleType) -> None:
            execute(module)
            for action in self.actions.pop(name, []):
                action()

        spec.loader.exec_module = execute_and_act  # type: ignore[method-assign]
        return spec
