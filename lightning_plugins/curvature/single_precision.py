"""Evaluates the loss of a half-precision network in single precision."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_HALF = (torch.float16, torch.bfloat16)


def at_least_single_precision(
    network: nn.Module, loss: Callable[..., Tensor]
) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """Return a loss, and the parameters to differentiate it by, in float32 or float64.

    The 8 significant bits of bfloat16 are too few for the three-term recurrence of Lanczos. While
    the returned loss runs, float32 copies therefore replace parameters and buffers in half
    precision, and half-precision tensors in its arguments are converted. If the network has no
    half-precision tensors, ``loss`` and its parameters are returned unchanged.

    Args:
        network: The network whose weights ``loss`` uses.
        loss: A function ``loss(*batch)`` that calls ``network`` and returns a scalar.

    Returns:
        The loss as a function of the same arguments, and the parameters that require a gradient, in
        the order of ``network.parameters()``.
    """
    named = [*network.named_parameters(), *network.named_buffers()]
    if not any(tensor.dtype in _HALF for _, tensor in named):
        return loss, [parameter for parameter in network.parameters() if parameter.requires_grad]
    copies = {
        name: tensor.detach().float().requires_grad_(tensor.requires_grad)
        for name, tensor in named
        if tensor.dtype in _HALF
    }
    bound = _Bound(network, loss)
    replaced = {f"network.{name}": copy for name, copy in copies.items()}

    def measured(*batch: Any) -> Tensor:
        return torch.func.functional_call(bound, replaced, _converted(batch))

    return measured, [
        copies.get(name, parameter)
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
    ]


class _Bound(nn.Module):
    """A loss as the forward pass of a module, because ``functional_call`` requires a module."""

    def __init__(self, network: nn.Module, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.network = network
        self._loss = loss

    def forward(self, *batch: Any) -> Tensor:
        return self._loss(*batch)


def _converted(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.dtype in _HALF else value
    if isinstance(value, dict):
        return {key: _converted(part) for key, part in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(_converted(part) for part in value)
    return value
