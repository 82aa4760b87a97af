"""The base class of the callbacks: copies and pickles of a callback."""

from collections import Counter
from copy import deepcopy
from pathlib import PurePath
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback
from torch import Tensor

from lightning_plugins._lightning_compat.loops import fitting_trainer


class PluginCallback(Callback):
    """Base class of callbacks that libraries may copy, or save in a checkpoint's hyperparameters.

    A pickle holds the settings and results of a callback and nothing of the run in progress, such
    as the Trainer. The classes of this package are on torch's list for
    ``torch.load(weights_only=True)``, which may call them with any arguments; those that then read
    files are not. A copy passes its results to the callback that was copied, because a user reads
    them there.
    """

    results: ClassVar[tuple[str, ...]] = ()
    """Names of the attributes that a run sets and a user reads."""

    def __init_subclass__(cls, reads_files: bool = False, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.__module__.startswith("lightning_plugins.") and not reads_files:
            torch.serialization.add_safe_globals([cls])

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "log":
            self._check_before_data(value)
        original = self.__dict__.get("_copied_from")
        if original is not None and name in self.results:
            setattr(original, name, value)

    def _check_before_data(self, log: Any) -> None:
        """Refuse an unsupported Trainer when it assigns ``log``, before it prepares data.

        ``setup``, which also checks, comes after the data.
        """
        check, trainer = getattr(self, "check", None), fitting_trainer(log)
        if trainer is not None and callable(check):
            check(trainer)

    def __getstate__(self) -> dict[str, Any]:
        # Private attributes of other kinds belong to the run in progress: None or empty before it.
        return {
            name: value if not name.startswith("_") or _is_plain(value) else _empty(value)
            for name, value in vars(self).items()
            if name not in ("_copied_from", *_OF_TRAINER)
        }

    def __copy__(self) -> "PluginCallback":
        return self._with_state(dict(self.__getstate__()))

    def __deepcopy__(self, memo: dict[int, Any]) -> "PluginCallback":
        return self._with_state(deepcopy(self.__getstate__(), memo))

    def _with_state(self, state: dict[str, Any]) -> "PluginCallback":
        copied = type(self).__new__(type(self))
        copied.__dict__.update(state, _copied_from=self)
        return copied


_OF_TRAINER = ("log", "log_dict")
"""The module's methods, which the Trainer assigns to callbacks."""

_PLAIN = (type(None), bool, int, float, complex, str, bytes, Tensor, torch.dtype, torch.device)


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return type(value) in (dict, Counter) and all(
            _is_plain(part) for item in value.items() for part in item
        )
    if isinstance(value, list | tuple | set):
        return type(value) in (list, tuple, set) and all(_is_plain(part) for part in value)
    return isinstance(value, (*_PLAIN, PurePath))


def _empty(value: Any) -> Any:
    return type(value)() if type(value) in (list, tuple, dict, set) else None
