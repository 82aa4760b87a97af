"""The ``step`` of an optimizer's base class, without the hooks that PyTorch wraps around it."""

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer


def step_without_hooks(optimizer: Optimizer, mixin: type[Optimizer]) -> Callable[[Optimizer], Any]:
    """Return the ``step`` that ``super()`` finds in ``mixin``, without PyTorch's hook wrapper.

    PyTorch wraps ``step`` of every instantiated class to run the hooks of the instance. The wrapper
    of the mixin's own ``step`` runs them already.

    The loop over the bases replaces ``super()``, because ``torch.compile`` breaks its graph at an
    attribute of a ``super()`` object.
    """
    bases = type(optimizer).__mro__
    for cls in bases[bases.index(mixin) + 1 :]:
        step = cls.__dict__.get("step")
        if step is not None:
            return step.__wrapped__ if getattr(step, "hooked", False) else step
    raise AssertionError(f"torch.optim.Optimizer, a base of {mixin.__name__}, has no step")
