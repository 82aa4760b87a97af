"""Real 8x8 digits that come with scikit-learn."""

import importlib.util

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import DataLoader, Dataset

from lightning_plugins.datamodules.partition import (
    DirichletPartition,
    evaluation_loader,
    stratified_order,
    training_loader,
)
from lightning_plugins.datamodules.resumable import ResumableDataLoader

_NUM_TRAIN, _NUM_VALIDATION = 1000, 297


class DigitsDataModule(LightningDataModule):
    """1797 handwritten digits: 1000 for training, 297 for validation, 500 for test.

    Batches are ``(images, labels)``: float32 ``(batch, 1, 8, 8)`` in [0, 1] and int64 ``(batch,)``
    in 0..9. The three parts have the classes in equal proportion and are always the same samples,
    whatever the seed. After ``setup`` they stand in ``train_dataset``, ``val_dataset`` and
    ``test_dataset``. Prediction goes over the test part.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI (CC BY 4.0), as
    ``sklearn.datasets.load_digits``.

    Args:
        batch_size: samples a batch on each rank.
        seed: of the order of training samples, their shifts, and the label noise.
        label_noise: share of training labels that become one of the other labels, in [0, 1].
        random_shift: up to how many pixels each training image moves, each time it is fetched,
            along each axis; 0 to 7. What comes in from outside is black.
        num_workers: processes that fetch batches ahead.
        partition: gives each rank a label-skewed share of its own. Label noise comes after it.

    Raises:
        ValueError: an argument outside its range.
        ImportError: in ``setup``, without scikit-learn.
    """

    num_classes = 10

    def __init__(
        self,
        batch_size: int = 25,
        seed: int = 0,
        label_noise: float = 0.0,
        random_shift: int = 0,
        num_workers: int = 0,
        partition: DirichletPartition | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: expected at least 1")
        if seed < 0:
            raise ValueError(f"seed={seed}: expected at least 0")
        if not 0 <= label_noise <= 1:
            raise ValueError(f"label_noise={label_noise}: expected a share in [0, 1]")
        if not 0 <= random_shift < 8:
            raise ValueError(f"random_shift={random_shift}: expected 0 to 7 pixels")
        if num_workers < 0:
            raise ValueError(f"num_workers={num_workers}: expected at least 0")
        self.batch_size = batch_size
        self.seed = seed
        self.label_noise = label_noise
        self.random_shift = random_shift
        self.num_workers = num_workers
        self.partition = partition

    def setup(self, stage: str | None = None) -> None:
        """Load the digits and cut them into the three parts."""
        if importlib.util.find_spec("sklearn") is None:
            raise ImportError(
                'the digits come with scikit-learn: pip install "lightning-plugins[vision]"'
            )
        from sklearn.datasets import load_digits

        pixels, digit = load_digits(return_X_y=True)
        images = torch.from_numpy(pixels.reshape(-1, 1, 8, 8) / 16).float()
        labels = torch.from_numpy(digit).long()
        order = stratified_order(labels)
        train, validation, test = np.split(order, [_NUM_TRAIN, _NUM_TRAIN + _NUM_VALIDATION])
        self.train_indices, self.val_indices, self.test_indices = train, validation, test
        # By the true labels: noise would otherwise be sorted out by the partition.
        self._partition_labels = labels[train]
        noisy = with_label_noise(labels[train], self.label_noise, self.num_classes, self.seed)
        self.train_dataset: Dataset = Digits(images[train], noisy, self.random_shift)
        self.val_dataset: Dataset = Digits(images[validation], labels[validation])
        self.test_dataset: Dataset = Digits(images[test], labels[test])

    def train_dataloader(self) -> ResumableDataLoader:
        """Shuffled batches of the training part."""
        return training_loader(
            self.train_dataset,
            self._partition_labels,
            partition=self.partition,
            trainer=self.trainer,
            batch_size=self.batch_size,
            seed=self.seed,
            num_workers=self.num_workers,
        )

    def val_dataloader(self) -> DataLoader:
        """Batches of the validation part, in order."""
        return self._in_order(self.val_dataset)

    def test_dataloader(self) -> DataLoader:
        """Batches of the test part, in order."""
        return self._in_order(self.test_dataset)

    def predict_dataloader(self) -> DataLoader:
        """Batches of the test part, in order."""
        return self._in_order(self.test_dataset)

    def _in_order(self, dataset: Dataset) -> DataLoader:
        return evaluation_loader(
            dataset,
            partition=self.partition,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
        )


class Digits(Dataset):
    """``(image, label)`` pairs in memory: float32 ``(1, height, width)`` and a class number.

    Args:
        images: float32 ``(num_samples, 1, height, width)``.
        labels: int64 ``(num_samples,)``.
        random_shift: up to how many pixels an image moves along each axis when it is fetched;
            drawn from torch's global generator, which ``ResumableDataLoader`` seeds.
    """

    def __init__(self, images: Tensor, labels: Tensor, random_shift: int = 0) -> None:
        self.images = images
        self.labels = labels
        self.random_shift = random_shift

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index]
        if self.random_shift:
            image = shifted(image, self.random_shift)
        return image, self.labels[index]

    def without_augmentation(self) -> "Digits":
        """The same samples, not moved; what measures the loss asks for it."""
        return Digits(self.images, self.labels)


def shifted(image: Tensor, max_pixels: int) -> Tensor:
    """``image`` ``(channels, height, width)`` moved by up to ``max_pixels`` along each axis.

    The move is uniform and drawn from torch's global generator; zeros come in from outside.
    """
    down, right = torch.randint(0, 2 * max_pixels + 1, (2,)).tolist()
    height, width = image.shape[-2:]
    return pad(image, [max_pixels] * 4)[..., down : down + height, right : right + width]


def with_label_noise(labels: Tensor, share: float, num_classes: int, seed: int) -> Tensor:
    """``labels`` with ``round(share * num_samples)`` of them replaced by another class.

    Which ones, and by which of the other classes, is uniform and a function of ``seed``.
    """
    generator = torch.Generator().manual_seed(seed)
    noisy = labels.clone()
    count = round(share * len(labels))
    chosen = torch.randperm(len(labels), generator=generator)[:count]
    offset = torch.randint(1, num_classes, (count,), generator=generator)
    noisy[chosen] = (labels[chosen] + offset) % num_classes
    return noisy
