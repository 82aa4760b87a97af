"""The state of loaders without a ``state_dict``: what their samplers and data sets change."""

import copy
import json
import random
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_plugins.inputs import parse_json

_DEEPEST = 3
_SCALARS = (bool, int, float, str, type(None))
_LONGEST = 1_000_000
_MOST_PARTS = 1000
"""Longer lists and dicts hold samples, not parts of a data set."""
_OF_SAMPLES = ("data_source", "dataset", "datasets")


def state_of_loader(loader: Any) -> dict[str, dict[str, Any]]:
    """Return what an epoch of ``loader`` can depend on besides the global random generators.

    Includes the generators that are attributes of the loader, its samplers, its data set and its
    collate function, also in lists and dicts; of the samplers and the collate function also plain
    numbers, such as an epoch, and lists, tensors and arrays of up to a million of them, such as an
    order or weights; the same of a loader of another class than torch's; and the state of a data
    set with ``state_dict`` and ``load_state_dict``.

    Returns:
        ``generators`` and ``numbers`` by dotted attribute names, and ``dataset``: tensors and plain
        data.
    """
    state: dict[str, dict[str, Any]] = {"generators": {}, "numbers": {}}
    for path, _, _, value in _attributes(loader):
        if _is_generator(value):
            state["generators"][path] = _saved(value)
        else:
            state["numbers"][path] = _copied(value)
    dataset = getattr(loader, "dataset", None)
    if dataset is not None and has_state(dataset):
        state["dataset"] = copy.deepcopy(dataset.state_dict())
    return state


def restore_loader(
    loader: Any, state: dict[str, dict[str, Any]], only: set[int] | None = None
) -> None:
    """Restore the result of :func:`state_of_loader`, as far as the loader has the attributes.

    Args:
        loader: The loader.
        state: The state.
        only: Identities of the objects whose attributes are restored, see :func:`held_by`; None
            restores all.
    """
    for path, owner, name, value in _attributes(loader):
        if only is not None and id(owner) not in only and id(value) not in only:
            continue
        if _is_generator(value):
            if path in state["generators"]:
                _restore(value, state["generators"][path])
        elif path in state["numbers"]:
            _assign(owner, name, value, state["numbers"][path])
    dataset = getattr(loader, "dataset", None)
    if "dataset" in state and has_state(dataset) and (only is None or id(dataset) in only):
        loader.dataset.load_state_dict(copy.deepcopy(state["dataset"]))


def beside_its_own(state: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the part of a state that may lack in the own state of a loader: not the order."""
    numbers = {k: x for k, x in state["numbers"].items() if k.startswith("collate_fn.")}
    return {"generators": state["generators"], "numbers": numbers}


def held_by(owners: Iterable[Any]) -> set[int]:
    """Return the identities of generators, samplers and data sets that are attributes of owners.

    A DataModule that creates its loaders again in each epoch hands them these.
    """
    seen: set[int] = set()
    for owner in owners:
        held = {name: x for name, x in vars(owner).items() if not name.endswith("trainer")}
        for _ in _walk("", held, 0, False, seen):
            pass
    return seen


def changed_numbers(before: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """Return ``state`` without the numbers that are as ``before``, such as a batch size."""
    old, numbers = before["numbers"], state["numbers"]
    changed = {
        path: value for path, value in numbers.items() if not _equal(old.get(path, value), value)
    }
    return {**state, "numbers": changed}


def has_state(loader: Any) -> bool:
    """Return whether a loader or a data set saves and restores its own state."""
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")


def continues_by_itself(loader: Any) -> bool:
    """Return whether a loader computes the order of an epoch from its own seed, as this package's.

    Lightning restores the state of other loaders within an epoch, and not at its end.
    """
    return has_state(loader) and hasattr(loader, "take_resized_batches")


def _is_plain(value: Any) -> bool:
    if isinstance(value, _SCALARS):
        return True
    if isinstance(value, Tensor):
        return value.numel() <= _LONGEST
    if isinstance(value, np.ndarray):
        return value.size <= _LONGEST and value.dtype.kind in "biuf"
    return (
        isinstance(value, list)
        and len(value) <= _LONGEST
        and all(isinstance(entry, _SCALARS) for entry in value)
    )


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    return list(value) if isinstance(value, list) else value


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return type(one) is type(other) and one == other


def _assign(owner: Any, name: str, value: Any, saved: Any) -> None:
    """Set an attribute to its saved value; a list or array is changed in place."""
    if isinstance(value, list) and isinstance(saved, list):
        value[:] = saved
    elif isinstance(value, np.ndarray) and isinstance(saved, Tensor):
        if value.shape == tuple(saved.shape):
            value[...] = saved.numpy()
        else:
            setattr(owner, name, saved.numpy().copy())
    elif isinstance(value, Tensor) and isinstance(saved, Tensor):
        setattr(owner, name, saved.clone())
    elif isinstance(value, _SCALARS) and isinstance(saved, _SCALARS) and not _equal(value, saved):
        setattr(owner, name, saved)


def _attributes(loader: Any) -> Iterator[tuple[str, Any, str, Any]]:
    """Yield path, owner, name and value of generators, and of the samplers' plain data."""
    seen: set[int] = set()
    if isinstance(getattr(loader, "generator", None), torch.Generator):
        seen.add(id(loader.generator))
        yield "generator", loader, "generator", loader.generator
    if not continues_by_itself(loader) and not isinstance(loader, DataLoader):
        yield from _walk("loader", loader, 0, True, seen)
    for root in ("sampler", "batch_sampler", "dataset", "collate_fn"):
        yield from _walk(root, getattr(loader, root, None), 0, root != "dataset", seen)


def _walk(
    path: str, owner: Any, depth: int, is_sampler: bool, seen: set[int]
) -> Iterator[tuple[str, Any, str, Any]]:
    if depth > _DEEPEST or id(owner) in seen or isinstance(owner, Tensor | type | Iterator):
        return
    if isinstance(owner, list | tuple | dict):
        if len(owner) > _MOST_PARTS:
            return
        items = owner.items() if isinstance(owner, dict) else enumerate(owner)
        attributes = {str(name): value for name, value in items}
    elif hasattr(owner, "__dict__"):
        attributes = vars(owner)
    else:
        return
    seen.add(id(owner))
    for name, value in list(attributes.items()):
        below = f"{path}.{name}"
        if is_sampler and hasattr(owner, "__dict__") and _is_plain(value):
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
