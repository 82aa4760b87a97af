"""Buffers that a module does not put into its ``state_dict``, such as memory banks and queues."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from lightning_plugins.nn.shards import local


class UnsavedBuffers:
    """The non-persistent buffers of a module that differ from those at the start of the run.

    Others, such as masks and rotary embeddings, are made again by the module's constructor, and can
    be large.

    Args:
        module: The module at the start of the run, before a checkpoint's buffers are restored.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._at_start = {name: _fingerprint(buffer) for name, _, buffer in _unsaved(module)}

    def changed(self) -> dict[str, Tensor]:
        """Return copies of the changed buffers by their qualified names."""
        return {
            name: local(buffer).detach().clone()
            for name, _, buffer in _unsaved(self._module)
            if _fingerprint(buffer) != self._at_start.get(name)
        }

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Restore the result of :meth:`changed`; names that the module lacks are ignored."""
        for name, owner, buffer in list(_unsaved(self._module)):
            value = saved.get(name)
            if not isinstance(value, Tensor):
                continue
            if value.shape == local(buffer).shape and value.dtype == buffer.dtype:
                with torch.no_grad():
                    local(buffer).copy_(value)
            else:  # made at its first use
                owner._buffers[name.rpartition(".")[2]] = value.to(buffer.device)


def _unsaved(module: nn.Module) -> Iterator[tuple[str, nn.Module, Tensor]]:
    for prefix, owner in module.named_modules():
        for name in sorted(owner._non_persistent_buffers_set):
            buffer = owner._buffers.get(name)
            if buffer is not None:
                yield f"{prefix}.{name}".lstrip("."), owner, buffer


def _fingerprint(buffer: Tensor) -> tuple[object, ...]:
    """Return shape, sum and weighted sum, which a permutation changes; NaN never equals itself."""
    values = local(buffer).detach().cpu().flatten()
    values = torch.view_as_real(values).flatten() if values.is_complex() else values
    values = values.double()
    places = torch.arange(1, len(values) + 1, dtype=torch.float64)
    return (*buffer.shape, float(values.sum()), float(values @ places))
