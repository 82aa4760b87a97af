"""Plugins for PyTorch Lightning: callbacks, optimizers, a strategy, and the tasks of ten papers.

Importing this package loads neither torch nor Lightning. Import from its subpackages, for example
``from lightning_plugins.callbacks import LateSAM``.
"""

import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

__version__ = "0.1.0"

_TOP_LEVEL_FOLDERS = ("callbacks", "datamodules", "litmodels", "simulators")


class _CheckoutFinder:
    """Finds the four subpackages whose folders are at the top level of a checkout.

    A wheel contains them inside the package, and an editable install maps them; only a checkout on
    ``sys.path`` requires this finder. It finds exactly these four names, so ``tests`` and the other
    top-level folders do not become importable under the package.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def find_spec(
        self, fullname: str, path: object = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        if package != __name__ or name not in _TOP_LEVEL_FOLDERS:
            return None
        return PathFinder.find_spec(fullname, [str(self._root)])


def _is_our_checkout(root: Path) -> bool:
    pyproject = root / "pyproject.toml"
    return pyproject.is_file() and 'name = "lightning-plugins"' in pyproject.read_text("utf-8")


if sys.argv[:1] == ["-m"]:  # `python -m` is about to run a module, maybe of this package
    from lightning_plugins.current_folder import is_command, remove_current_folder

    if is_command(sys.orig_argv):
        remove_current_folder()

_root = Path(__file__).resolve().parent.parent
if _is_our_checkout(_root):
    sys.meta_path.append(_CheckoutFinder(_root))
