"""The same few samples of a data loader, whatever the order of the run."""

from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import IterableDataset, default_collate

from lightning_plugins.nn.random_state import seeded


@dataclass(frozen=True)
class Part:
    """One collated batch, on the device and in the precision of the run.

    Attributes:
        num_samples: in it.
        batch: as ``training_step`` would get it.
    """

    num_samples: int
    batch: Any


def fixed_subset(
    trainer: Trainer, loader: Any, num_samples: int, batch_size: int, seed: int
) -> list[Part]:
    """Up to ``num_samples`` samples of the loader's data set, chosen and augmented by ``seed``.

    They are the same at every call, on every rank, and draw nothing from the run's generators or
    its loader. A data set that has a method ``without_augmentation()`` is asked for what that
    returns; any other is taken with the augmentation that it does.

    Raises:
        MisconfigurationException: a loader without a data set that can be indexed, or one that does
            not collate samples to batches.
    """
    dataset: Any = getattr(loader, "dataset", None)
    if dataset is None:  # ResumableDataLoader hides it from Lightning
        dataset = getattr(loader, "indexed_dataset", None)
    has_items = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    if not has_items or isinstance(dataset, IterableDataset):
        raise MisconfigurationException(
            "SharpnessMonitor needs one data loader with a data set that has a length and can be "
            f"indexed, got {type(loader).__name__} of {type(dataset).__name__}"
        )
    if getattr(loader, "batch_size", 1) is None and getattr(loader, "batch_sampler", None) is None:
        raise MisconfigurationException(
            "SharpnessMonitor needs a data loader that makes batches of samples, got one with "
            "batch_size=None"
        )
    if hasattr(dataset, "without_augmentation"):
        dataset = dataset.without_augmentation()
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(dataset), generator=generator)[:num_samples].tolist()
    collate = getattr(loader, "collate_fn", None) or default_collate
    parts = []
    with seeded(seed):
        for start in range(0, len(chosen), batch_size):
            indices = chosen[start : start + batch_size]
            batch = collate([dataset[index] for index in indices])
            batch = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch))
            parts.append(Part(len(indices), batch))
    return parts
