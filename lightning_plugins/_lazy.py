"""Package exports that are imported on first access (PEP 562)."""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_exports(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` for a package with lazy exports.

    Importing one class then loads only the module that defines it. Each package also imports the
    same names under ``if TYPE_CHECKING``, for type checkers and completion. No export may have the
    name of a submodule: importing the submodule would replace the export.

    Args:
        package: The ``__name__`` of the package.
        modules: For each public name, the submodule of ``package`` that defines it.
    """

    def __getattr__(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{modules[name]}"), name)
        setattr(sys.modules[package], name, value)  # later accesses do not come here
        return value

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return __getattr__, __dir__, sorted(modules)


def load_exports(*packages: str) -> None:
    """Import every public class of ``packages``, so that jsonargparse finds it by its bare name."""
    for package in packages:
        module = importlib.import_module(package)
        for name in module.__all__:
            getattr(module, name)
