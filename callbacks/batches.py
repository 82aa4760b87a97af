"""Access to batches: their elements, their normalization, and a fixed subset of a data loader."""

import copy
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.data import extract_batch_size
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import IterableDataset, default_collate

from lightning_plugins.nn.random_state import seeded

Key = int | str


def element_of(batch: Any, key: Key, argument: str) -> Any:
    """Return one element of a batch.

    Args:
        batch: A list, tuple or mapping.
        key: The index in a list or tuple, or the key in a mapping.
        argument: The caller's argument that provided ``key``; the error names it.

    Raises:
        ValueError: The batch is of another type, or has no such element.
    """
    if isinstance(batch, (list, tuple)) and isinstance(key, int) and 0 <= key < len(batch):
        return batch[key]
    if isinstance(batch, Mapping) and key in batch:
        return batch[key]
    if isinstance(batch, Mapping):
        what = f"a mapping with the keys {', '.join(map(repr, batch))}"
    elif isinstance(batch, (list, tuple)):
        what = f"a {type(batch).__name__} of {len(batch)} elements"
    else:
        what = f"a {type(batch).__name__}"
    raise ValueError(
        f"{argument}={key!r}: the batch is {what}; pass an index of the tuple or list, or a key of "
        "the dictionary"
    )


def with_element(batch: Any, key: Key, value: Any) -> Any:
    """Return a shallow copy of ``batch`` with one element replaced."""
    if isinstance(batch, MutableMapping):
        changed = copy.copy(batch)
        changed[key] = value
        return changed
    elements = list(batch)
    elements[key] = value  # type: ignore[index]
    if isinstance(batch, list):
        return elements
    return batch._replace(**{batch._fields[key]: value}) if _is_named(batch) else tuple(elements)


def pixel_normalization(
    trainer: Trainer, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[Sequence[float] | None, Sequence[float] | None]:
    """Return ``mean`` and ``std``; if both are None, those of the DataModule, if it has them."""
    if mean is None and std is None:
        datamodule = getattr(trainer, "datamodule", None)
        return getattr(datamodule, "mean", None), getattr(datamodule, "std", None)
    return mean, std


@dataclass(frozen=True)
class SubsetBatch:
    """One collated batch, on the device and in the precision of the run.

    Attributes:
        num_samples: The number of samples in the batch.
        batch: The batch as ``training_step`` would receive it.
    """

    num_samples: int
    batch: Any


def fixed_subset(
    trainer: Trainer,
    loader: Any,
    num_samples: int,
    batch_size: int,
    seed: int,
    share: tuple[int, int] = (0, 1),
) -> list[SubsetBatch]:
    """Return up to ``num_samples`` samples of the loader's data set, selected by ``seed``.

    Every call and every rank returns the same samples, with the same augmentation. The function
    does not use the run's random generators or its loader. If the data set has a method
    ``without_augmentation()``, its return value replaces the data set. With a ``share`` (index,
    number), each rank returns another part of equal size of these samples.

    Raises:
        MisconfigurationException: See :func:`has_fixed_subset`.
    """
    dataset = _dataset_of(loader)
    if not has_fixed_subset(loader):
        raise MisconfigurationException(
            "SharpnessMonitor needs one data loader that collates samples of a data set with a "
            f"length and indices, got {type(loader).__name__} of {type(dataset).__name__} with "
            f"batch_size={getattr(loader, 'batch_size', None)}; set split='train', without shards"
        )
    if hasattr(dataset, "without_augmentation"):
        dataset = dataset.without_augmentation()
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(dataset), generator=generator)[:num_samples].tolist()
    index, number = share
    chosen = chosen[: len(chosen) // number * number][index::number]
    collate = getattr(loader, "collate_fn", None) or default_collate
    batches = []
    with seeded(seed):
        for start in range(0, len(chosen), batch_size):
            indices = chosen[start : start + batch_size]
            batch = collate([dataset[index] for index in indices])
            batch = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch))
            batches.append(SubsetBatch(len(indices), batch))
    return batches


def has_fixed_subset(loader: Any) -> bool:
    """Return whether a loader collates samples of a data set that has a length and indices."""
    dataset = _dataset_of(loader)
    has_items = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    collates = getattr(loader, "batch_size", 1) is not None or (
        getattr(loader, "batch_sampler", None) is not None
    )
    return has_items and collates and not isinstance(dataset, IterableDataset)


def collected_batch(batch: Any) -> SubsetBatch:
    """Return a copy of a training batch, because the training step may change it in place."""
    try:
        num_samples = extract_batch_size(batch)
    except MisconfigurationException:  # it contains no tensors
        num_samples = 1
    return SubsetBatch(num_samples, copy.deepcopy(batch))


def _dataset_of(loader: Any) -> Any:
    dataset = getattr(loader, "dataset", None)
    # ResumableDataLoader hides it from Lightning
    return getattr(loader, "indexed_dataset", None) if dataset is None else dataset


def _is_named(batch: Any) -> bool:
    return hasattr(batch, "_fields") and hasattr(batch, "_replace")
