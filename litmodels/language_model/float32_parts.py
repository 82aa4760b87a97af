"""Embeddings and norms in single precision within a network in half precision."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_NORM = re.compile(r"Norm\w*$")


def keep_in_float32(network: Any, dtype: torch.dtype) -> None:
    """Convert a network to ``dtype`` except its embeddings and norms, which stay in float32.

    Later conversions of the whole network, such as Lightning's for ``bf16-true``, do not change
    them either. Their outputs have the type ``dtype``, so all matrix products compute in it, except
    that of an output head that shares the embedding's weight.

    Args:
        network: A network of transformers in float32.
        dtype: Half precision.
    """
    kept = [
        module
        for module in network.modules()
        if isinstance(module, nn.Embedding)
        or (_NORM.search(type(module).__name__) and any(True for _ in module.parameters(False)))
    ]
    head = network.get_output_embeddings()
    is_tied = any(head.weight is part.weight for part in kept if isinstance(part, nn.Embedding))
    for module in [*kept, *([head] if is_tied else [])]:
        _keep_type(module)
        if not isinstance(module, nn.Embedding):
            module.register_forward_pre_hook(_in_float32)
        if module is not head:
            module.register_forward_hook(_in_type(dtype))
    network.to(dtype)


@contextmanager
def built_in_float32(enabled: bool) -> Iterator[torch.dtype]:
    """Make float32 torch's default type in the block, and yield the type before."""
    before = torch.get_default_dtype()
    if enabled:
        torch.set_default_dtype(torch.float32)
    try:
        yield before
    finally:
        torch.set_default_dtype(before)


def _keep_type(module: nn.Module) -> None:
    """Let ``module.to(dtype)`` and its like move floating-point parameters without converting."""
    apply = module._apply

    def move(function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        def without_type(tensor: Tensor) -> Tensor:
            found = function(tensor)
            return found if found.dtype == tensor.dtype else tensor.to(found.device)

        return apply(without_type, recurse)

    module._apply = move  # type: ignore[method-assign]


def _in_float32(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return arguments[0].float(), *arguments[1:]


def _in_type(dtype: torch.dtype) -> Callable[..., Tensor]:
    return lambda module, arguments, output: output.to(dtype)
