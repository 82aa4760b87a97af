"""Calling the ``step`` of a mixin's base from the ``step`` of the mixin."""

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer


def step_without_hooks(optimizer: Optimizer, mixin: type[Optimizer]) -> Callable[[Optimizer], Any]:
    """The ``step`` that ``super()`` would find in ``mixin``, below the wrapper that runs hooks.

    PyTorch puts the wrapper on ``step`` once a class was instantiated. It runs the hooks that are
    registered on the instance; around the mixin's own step they run already.

    The bases are walked by hand, since ``torch.compile`` breaks its graph where an attribute of
    what ``super()`` gives is asked for.
    """
    bases = type(optimizer).__mro__
    for cls in bases[bases.index(mixin) + 1 :]:
        step = cls.__dict__.get("step")
        if step is not None:
            return step.__wrapped__ if getattr(step, "hooked", False) else step
    raise AssertionError(f"torch.optim.Optimizer, a base of {mixin.__name__}, has no step")
