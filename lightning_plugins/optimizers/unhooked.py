"""Calling a base class's ``step`` from the ``step`` of a subclass."""

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer


def unhooked(bound_step: Any) -> Callable[[Optimizer], Any]:
    """The function below the wrapper that PyTorch puts on ``step`` once its class was instantiated.

    The wrapper runs the hooks that are registered on the instance; around the subclass's own step
    they run already.
    """
    step = bound_step.__func__
    return step.__wrapped__ if getattr(step, "hooked", False) else step
