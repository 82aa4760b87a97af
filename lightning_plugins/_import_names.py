"""The two import names of Lightning, ``lightning.pytorch`` and ``pytorch_lightning``.

Both packages hold the same code as different classes, which ``isinstance`` distinguishes.
"""

import importlib
from typing import Any


def root_of(instance: Any) -> str:
    """Return the import name of the Lightning that defines a base class of ``instance``."""
    modules = [base.__module__ for base in type(instance).__mro__]
    is_other = any(module.partition(".")[0] == "pytorch_lightning" for module in modules)
    return "pytorch_lightning" if is_other else "lightning.pytorch"


def of_root(instance: Any, path: str) -> Any:
    """Return an object of the Lightning that ``instance`` uses.

    Args:
        instance: A Trainer, a strategy or another object of Lightning.
        path: Module and name after the import name, such as ``callbacks.ModelCheckpoint``.
    """
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(f"{root_of(instance)}.{module}"), name)
