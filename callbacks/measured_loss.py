"""Which loss of a LightningModule is measured."""

import inspect
from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lightning_plugins.callbacks.attacked_module import attack_loss


def measured_loss(
    module: LightningModule, loss: str | Callable[..., Tensor] | None
) -> Callable[[Any], Tensor]:
    """The scalar loss of a batch as ``training_step`` gets it.

    Args:
        module: whose loss.
        loss: a method's name, called with the elements of the batch; a function, called with the
            module and the elements; or None for ``module.loss(batch)`` where that method takes one
            argument, ``module.loss(images, labels)`` where its parameters have these two names, and
            else the cross-entropy of ``module(inputs)`` for batches ``(inputs, labels)``.

    Raises:
        ValueError: ``loss`` names no method.
    """
    if callable(loss):
        function = loss
        return lambda batch: function(module, *_elements(batch))
    if loss is not None:
        method = getattr(module, loss, None)
        if not callable(method):
            raise ValueError(f"loss={loss!r}: {type(module).__name__} has no such method")
        return lambda batch: method(*_elements(batch))
    own = getattr(type(module), "loss", None)
    if inspect.isfunction(own) and len(inspect.signature(own).parameters) == 2:
        return lambda batch: module.loss(batch)  # type: ignore[operator]
    pair_loss = attack_loss(module)

    def of_a_pair(batch: Any) -> Tensor:
        elements = _elements(batch)
        if len(elements) != 2:
            raise MisconfigurationException(
                f"SharpnessMonitor does not know the loss of {type(module).__name__} for batches "
                f"of type {type(batch).__name__}: expected (inputs, labels), a method loss(batch), "
                "or the argument loss= with a function of the module and the batch"
            )
        return pair_loss(*elements)

    return of_a_pair


def _elements(batch: Any) -> tuple[Any, ...]:
    """The arguments that a batch stands for: a tensor or dictionary is one."""
    return tuple(batch) if isinstance(batch, list | tuple) else (batch,)
