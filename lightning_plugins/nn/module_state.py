"""Restores the modes and the state of a network after a forward pass."""

import random
import sys
from argparse import Namespace
from array import array
from collections import ChainMap, UserDict, UserList, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from operator import is_
from queue import Queue
from types import MemberDescriptorType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_plugins.nn.shards import local, reshard


@contextmanager
def evaluation_mode(network: Any) -> Iterator[None]:
    """Put every submodule of ``network`` into evaluation mode, and restore each mode afterwards.

    In evaluation mode, BatchNorm uses its running statistics without updating them, and dropout is
    off. The flags are set without calling ``train`` or ``eval``, which some networks override. If
    ``network`` is not a ``torch.nn.Module``, nothing happens.
    """
    modules = list(network.modules()) if isinstance(network, nn.Module) else []
    modes = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


@contextmanager
def state_untouched(
    module: nn.Module, leave: Iterable[Tensor] = (), also: Iterable[Any] = ()
) -> Iterator[None]:
    """Restore everything that ``module`` holds after the block, bit for bit, as the same objects.

    Restores parameters, buffers, submodules, modes and all other attributes of the module and its
    submodules: hooks, numbers, tensors, arrays, random generators, and the contents of lists,
    dicts, sets and deques. The same holds for modules in such containers, for the attributes and
    slots of objects of the caller's own classes, such as a moving average or a meter, for numbers
    and containers that are attributes of these classes, for namespaces, for optimizers, schedules
    and gradient scalers, for which parameters require gradients, and for frames of pandas.
    Attributes, submodules and buffers that the block adds are removed.

    Not restored: overwritten entries of lists, dicts and sets of more than 10,000 entries (what the
    block adds at their end is removed), frames of more than 10,000 rows, other objects of torch,
    Lightning and the standard library, also of classes that inherit from theirs, such as a data
    set or a callback, the Trainer, iterators, globals, files, and gradients.

    Tensors are copied, because PyTorch cannot report all changes: batch normalization does not even
    advance the version counter of its running statistics.

    Args:
        module: The module, whose state is copied when the block begins.
        leave: Tensors that are neither copied nor restored.
        also: Further containers to restore, with their contents.
    """
    snapshot = Snapshot([module, *also], leave)
    try:
        yield
    finally:
        snapshot.restore()


_LARGEST_CONTAINER = 10_000
_MOST_SCALARS = 100
"""Longer lists with scalar tensors are logs, whose entries nobody changes in place."""
_DEEPEST = 6
"""Containers and objects within each other; submodules do not count."""

_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device})

_OF_TORCH = frozenset(vars(nn.Module())) - {"training"}
_OF_LIGHTNING = frozenset(
    [
        "prepare_data_per_node",
        "allow_zero_length_dataloader_with_multiple_devices",
        "_log_hyperparams",
        "_hparams_name",
        "_hparams_initial",
        "_dtype",
        "_device",
        "_trainer",
        "_example_input_array",
        "_automatic_optimization",
        "_strict_loading",
        "_current_fx_name",
        "_param_requires_grad_state",
        "_metric_attributes",
        "_compiler_ctx",
        "_fabric",
        "_fabric_optimizers",
        "_device_mesh",
    ]
)
_SKIPPED = _OF_TORCH | _OF_LIGHTNING
_REGISTERED = ("_parameters", "_buffers", "_modules")
# transformers adds hooks in a forward pass, and an attribute that marks them.
_HOOKS = tuple(
    sorted(name for name, value in vars(nn.Module()).items() if "ward" in name and value == {})
)

_NAMESPACES = (
    *(SimpleNamespace, Namespace, UserDict, UserList, ChainMap, Queue),
    *(LRScheduler, GradScaler),
)
"""Classes of the standard library and of torch whose objects hold a caller's state."""

_FRAMEWORKS = frozenset(
    [
        "jsonargparse",
        "lightning",
        "lightning_fabric",
        "numpy",
        "omegaconf",
        "pytorch_lightning",
        "torch",
        "transformers",
    ]
)


class Snapshot:
    """The state that is reachable from modules, containers and objects, and the way back to it.

    Args:
        roots: The modules, containers and objects.
        leave: Tensors that are neither copied nor restored.
        with_tensors: Whether tensors are copied and restored.
    """

    def __init__(
        self, roots: Iterable[Any], leave: Iterable[Tensor] = (), with_tensors: bool = True
    ) -> None:
        self._leave = {id(tensor) for tensor in leave}
        self._seen = set(self._leave)
        self._requires_grad: list[tuple[Tensor, bool]] = []
        self._tensors: list[Tensor] = []
        self._namespaces: list[tuple[dict[str, Any], dict[str, Any], int]] = []
        self._undo: list[Callable[[], Any]] = []
        self._without_entries: list[dict[Any, Any]] = []
        self._alive: list[Any] = []
        self._roots = list(roots)
        self._reshard()
        for root in self._roots:
            self._visit(root, 0)
        self._versions = [_version(tensor) for tensor in self._tensors]
        if not with_tensors:
            self._tensors = []
        self._places = [local(tensor.detach()) for tensor in self._tensors]
        self._values = [place.clone() for place in self._places]

    def has_changed_tensors(self) -> bool:
        """Return whether a copied tensor was written in place."""
        return any(
            _version(tensor) != version
            for tensor, version in zip(self._tensors, self._versions, strict=False)
        )

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the state, as the same objects with the same bits."""
        self._reshard()  # else FSDP2 takes the restored shards for whole parameters
        for namespace, before, length in self._namespaces:
            for name, value in before.items():
                if namespace.get(name, self) is not value:
                    namespace[name] = value
            if len(namespace) > length:
                for name in namespace.keys() - before.keys() - _SKIPPED:
                    del namespace[name]
        for hooks in self._without_entries:
            hooks.clear()
        for undo in self._undo:
            undo()
        for tensor, flag in self._requires_grad:
            if tensor.requires_grad is not flag:
                tensor.requires_grad_(flag)
        for tensor, place in zip(self._tensors, self._places, strict=True):
            is_plain = tensor.layout == torch.strided and local(tensor) is tensor
            if is_plain and tensor.data_ptr() != place.data_ptr():
                tensor.data = place  # the block has assigned to ``tensor.data``
        if self._places:
            torch._foreach_copy_(self._places, self._values)

    def _reshard(self) -> None:
        for root in self._roots:
            if isinstance(root, nn.Module):
                reshard(root)

    def _visit(self, value: Any, depth: int) -> None:
        if type(value) in _PLAIN or id(value) in self._seen:
            return
        self._seen.add(id(value))
        if isinstance(value, Tensor):
            self._visit_tensor(value)
        elif isinstance(value, nn.Module):
            self._visit_module(value)
        elif depth > _DEEPEST:
            return
        elif isinstance(value, list | dict | set | deque | tuple):
            self._visit_container(value, depth)
        elif isinstance(value, np.ndarray):
            if value.flags.writeable:
                before = value.copy()
                self._undo.append(lambda: np.copyto(value, before))
            if value.dtype == object:
                self._visit(value.ravel().tolist(), depth)
        elif isinstance(value, torch.Generator):
            state = value.get_state()
            self._undo.append(lambda: value.set_state(state))
        elif isinstance(value, bytearray | array):
            content: Any = value[:]
            self._undo.append(lambda: value.__setitem__(slice(None), content))
        elif isinstance(value, np.random.RandomState):
            legacy = value.get_state()
            self._undo.append(lambda: value.set_state(legacy))
        elif isinstance(value, np.random.Generator):
            bits, numbers = value.bit_generator, value.bit_generator.state
            self._undo.append(lambda: setattr(bits, "state", numbers))
        elif isinstance(value, random.Random):
            words = value.getstate()
            self._undo.append(lambda: value.setstate(words))
        elif isinstance(value, Optimizer):
            self._visit_optimizer(value, depth)
        elif _is_object_with_state(value):
            if "_mgr" in getattr(value, "__dict__", ()):
                self._visit_frame(value)
                return
            if hasattr(value, "__dict__"):
                self._visit_namespace(vars(value), depth)
            self._visit_slots(value, depth)
            self._visit_class(type(value))

    def _visit_tensor(self, tensor: Tensor) -> None:
        if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
            return
        # An activation of a forward pass belongs to its graph and is not state.
        if tensor.grad_fn is not None or tensor.is_meta or tensor.is_inference():
            return
        # An expanded tensor cannot be written in place, so it cannot have changed either.
        if _overlaps_itself(tensor):
            return
        self._tensors.append(tensor)

    def _visit_module(self, module: nn.Module) -> None:
        if isinstance(module, torch.jit.ScriptModule):
            tensors = (*module.parameters(), *module.buffers())
            self._alive.append(tensors)  # created by the call, and known by their identities
            for tensor in tensors:
                self._visit(tensor, 0)
            return
        for part in _REGISTERED:
            entries = module.__dict__[part]
            self._namespaces.append((entries, dict(entries), len(entries)))
            for value in entries.values():
                self._visit(value, 0)
        parameters = (p for p in module._parameters.values() if p is not None)
        self._requires_grad += [(p, p.requires_grad) for p in parameters]
        for part in _HOOKS:
            if hooks := module.__dict__.get(part):
                self._namespaces.append((hooks, dict(hooks), len(hooks)))
            elif hooks is not None:
                self._without_entries.append(hooks)
        self._visit_namespace(module.__dict__, 0, _SKIPPED)
        self._visit_class(type(module))

    def _visit_class(self, kind: type) -> None:
        """Visit numbers and containers that are attributes of the caller's own classes."""
        if id(kind) in self._seen:
            return
        classes = [base for base in kind.__mro__ if id(base) not in self._seen]
        self._seen.update(map(id, classes))
        for base in classes:
            if _is_of_framework(base):
                continue
            for name, value in list(vars(base).items()):
                is_state = type(value) in _PLAIN or isinstance(value, _IN_CLASSES)
                if is_state and not name.startswith("__"):
                    self._undo.append(partial(_set_in_class, base, name, value))
                    self._visit(value, _DEEPEST - 2)

    def _visit_optimizer(self, optimizer: Optimizer, depth: int) -> None:
        before, states = vars(optimizer), optimizer.state
        self._namespaces.append((before, dict(before), len(before)))
        self._visit(optimizer.param_groups, depth + 1)
        entries = dict(states)
        self._undo.append(lambda: _refill(states, entries, states.update))
        for parameter, state in entries.items():
            if id(parameter) not in self._leave:  # else only the optimizer's own step changes it
                self._visit(state, depth + 1)

    def _visit_frame(self, frame: Any) -> None:
        if len(frame) <= _LARGEST_CONTAINER:
            blocks = frame.copy()._mgr  # pandas writes into the blocks
            self._undo.append(lambda: vars(frame).update(_mgr=blocks))

    def _visit_namespace(
        self, namespace: dict[str, Any], depth: int, skipped: frozenset[str] = frozenset()
    ) -> None:
        before = {name: value for name, value in namespace.items() if name not in skipped}
        self._namespaces.append((namespace, before, len(namespace)))
        for value in before.values():
            self._visit(value, depth + 1)

    def _visit_slots(self, value: object, depth: int) -> None:
        for name in _slots_of(value):
            before = getattr(value, name, _UNSET)
            self._undo.append(partial(_set_slot, value, name, before))
            self._visit(before, depth + 1)

    def _visit_container(self, container: Any, depth: int) -> None:
        if len(container) > _LARGEST_CONTAINER and not isinstance(container, deque):
            self._undo.append(partial(_cut, container, len(container)))
            return
        if isinstance(container, dict):
            before = dict(container)
            self._undo.append(lambda: _refill(container, before, container.update))
            values: Iterable[Any] = before.values()
        elif isinstance(container, tuple):
            values = container
        elif isinstance(container, set):
            members = set(container)
            self._undo.append(lambda: _refill(container, members, container.update))
            return
        else:
            values = entries = list(container)
            self._undo.append(lambda: _refill(container, entries, container.extend))
        if len(container) > _LARGEST_CONTAINER:
            return
        is_log = len(container) > _MOST_SCALARS and not isinstance(container, dict)
        for value in values:
            if not (is_log and isinstance(value, Tensor) and value.ndim == 0):
                self._visit(value, depth + 1)


def _cut(container: Any, length: int) -> None:
    """Remove what was added at the end of a list or dict."""
    if isinstance(container, list):
        del container[length:]
    elif isinstance(container, dict):
        while len(container) > length:
            container.popitem()


def _refill(container: Any, before: Any, fill: Callable[[Any], None]) -> None:
    """Give a container its former entries; an unchanged one is not written."""
    same = len(container) == len(before) and (
        container == before
        if isinstance(container, set)
        else all(map(is_, container.values(), before.values())) and list(container) == list(before)
        if isinstance(container, dict)
        else all(map(is_, container, before))
    )
    if not same:
        container.clear()
        fill(before)


_IN_CLASSES = (
    list,
    dict,
    set,
    deque,
    array,
    Tensor,
    np.ndarray,
    np.random.Generator,
    random.Random,
)


def _set_in_class(kind: type, name: str, before: Any) -> None:
    if vars(kind).get(name, _UNSET) is not before:
        setattr(kind, name, before)


_UNSET = object()


def _slots_of(value: object) -> tuple[str, ...]:
    """Return the names of the slots that hold values of an object."""
    kind: Any = type(value)
    return _slots_of_class(kind)


@cache
def _slots_of_class(kind: type) -> tuple[str, ...]:
    return tuple(
        name
        for base in kind.__mro__
        for name, descriptor in vars(base).items()
        if "__slots__" in vars(base) and isinstance(descriptor, MemberDescriptorType)
    )


def _set_slot(value: Any, name: str, before: Any) -> None:
    if before is not _UNSET:
        object.__setattr__(value, name, before)
    elif hasattr(value, name):
        object.__delattr__(value, name)


def _is_object_with_state(value: object) -> bool:
    if isinstance(value, _NAMESPACES):
        return True
    if isinstance(value, type) or hasattr(value, "__wrapped__"):
        return False
    if not (hasattr(value, "__dict__") or _slots_of(value)):
        return False
    packages = [base.__module__.partition(".")[0] for base in type(value).__mro__]
    # A data set, a callback or a DataModule of the caller's is not state of a training step.
    return packages[0] not in sys.stdlib_module_names and _FRAMEWORKS.isdisjoint(packages)


@cache
def _is_of_framework(kind: type) -> bool:
    package = kind.__module__.partition(".")[0]
    return package in _FRAMEWORKS or package in sys.stdlib_module_names


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _overlaps_itself(tensor: Tensor) -> bool:
    if tensor.layout != torch.strided:
        return False
    return any(
        stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)
    )
