"""The state of loaders without a ``state_dict``: generators and counters of their samplers."""

import json
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_plugins.inputs import parse_json

_DEEPEST = 3
_SCALARS = (bool, int, float, str, type(None))
_OF_SAMPLES = ("data_source", "dataset", "datasets")


def state_of_loader(loader: Any) -> dict[str, dict[str, Any]]:
    """Return what an epoch of ``loader`` can depend on besides the global random generators.

    Includes the generators that are attributes of the loader, its samplers and its data set, and
    plain numbers of the samplers, such as an epoch.

    Returns:
        ``generators`` and ``numbers`` by dotted attribute names: tensors and plain data.
    """
    state: dict[str, dict[str, Any]] = {"generators": {}, "numbers": {}}
    for path, owner, name, value in _attributes(loader):
        if isinstance(value, _SCALARS):
            state["numbers"][path] = value
        else:
            state["generators"][path] = _saved(getattr(owner, name))
    return state


def restore_loader(loader: Any, state: dict[str, dict[str, Any]]) -> None:
    """Restore the result of :func:`state_of_loader`, as far as the loader has the attributes."""
    for path, owner, name, value in _attributes(loader):
        if isinstance(value, _SCALARS):
            saved = state["numbers"].get(path, owner)
            if isinstance(saved, _SCALARS):
                setattr(owner, name, saved)
        elif path in state["generators"]:
            _restore(value, state["generators"][path])


def changed_numbers(before: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """Return ``state`` without the numbers that are as ``before``, such as a batch size."""
    old, numbers = before["numbers"], state["numbers"]
    changed = {path: value for path, value in numbers.items() if old.get(path, value) != value}
    return {**state, "numbers": changed}


def _attributes(loader: Any) -> Iterator[tuple[str, Any, str, Any]]:
    """Yield path, owner, name and value of generators, and of the samplers' plain numbers."""
    seen: set[int] = set()
    if isinstance(getattr(loader, "generator", None), torch.Generator):
        seen.add(id(loader.generator))
        yield "generator", loader, "generator", loader.generator
    for root in ("sampler", "batch_sampler", "dataset"):
        yield from _walk(root, getattr(loader, root, None), 0, root != "dataset", seen)


def _walk(
    path: str, owner: Any, depth: int, is_sampler: bool, seen: set[int]
) -> Iterator[tuple[str, Any, str, Any]]:
    if depth > _DEEPEST or id(owner) in seen or not hasattr(owner, "__dict__"):
        return
    if isinstance(owner, Tensor | type):
        return
    seen.add(id(owner))
    for name, value in list(vars(owner).items()):
        below = f"{path}.{name}"
        if isinstance(value, _SCALARS):
            if is_sampler:
                yield below, owner, name, value
        elif _is_generator(value):
            if id(value) not in seen:
                seen.add(id(value))
                yield below, owner, name, value
        else:
            of_sampler = is_sampler and name not in _OF_SAMPLES
            yield from _walk(below, value, depth + 1, of_sampler, seen)


def _is_generator(value: Any) -> bool:
    kinds = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
    return isinstance(value, kinds)


def _saved(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return json.dumps(generator.getstate())
    if isinstance(generator, np.random.RandomState):
        return json.dumps(generator.get_state(legacy=False), default=np.ndarray.tolist)
    return json.dumps(generator.bit_generator.state, default=np.ndarray.tolist)


def _restore(generator: Any, saved: Any) -> None:
    """Set a generator to a state from a checkpoint.

    The state must have the form of the generator's own, with positions inside its buffers: NumPy
    checks neither, and reads outside its memory.

    Raises:
        ValueError: It has another form.
    """
    now = _saved(generator)
    try:
        if isinstance(now, Tensor):
            if saved.dtype != now.dtype or saved.shape != now.shape:
                raise TypeError
            generator.set_state(saved)
            return
        state = parse_json(saved)
        if not _has_form(state, json.loads(now)):
            raise TypeError
        if isinstance(generator, random.Random):
            version, words, gauss = state
            generator.setstate((version, tuple(words), gauss))
        elif isinstance(generator, np.random.RandomState):
            generator.set_state(state)
        else:
            generator.bit_generator.state = state
    except (TypeError, ValueError, AttributeError, OverflowError, LookupError, RuntimeError) as e:
        kind = type(generator).__name__
        raise ValueError(
            f"the checkpoint's state of a loader's {kind} is refused: it is not a state of this "
            "generator"
        ) from e


# Key of NumPy's states -> largest value of a position, a flag, or half of a buffered word.
_LARGEST = {"pos": 624, "buffer_pos": 4, "has_gauss": 1, "has_uint32": 1, "uinteger": 2**32 - 1}
_LARGEST_WORD = 2**128 - 1  # of PCG64


def _has_form(value: Any, like: Any, key: str = "") -> bool:
    """Whether plain data has the keys, lengths, types and ranges of a generator's own state."""
    if isinstance(like, dict):
        keys = isinstance(value, dict) and value.keys() == like.keys()
        return keys and all(_has_form(value[name], like[name], name) for name in like)
    if isinstance(like, list):
        lengths = isinstance(value, list) and len(value) == len(like)
        return lengths and all(map(_has_form, value, like))
    if isinstance(like, bool | str):
        return type(value) is type(like) and value == like
    if isinstance(like, int):
        return type(value) is int and 0 <= value <= _LARGEST.get(key, _LARGEST_WORD)
    return value is None or isinstance(value, int | float)  # the second number of a Gaussian pair
