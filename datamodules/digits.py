"""Handwritten 8x8 digits that are part of scikit-learn."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset

from lightning_plugins.datamodules.partition import (
    DirichletPartition,
    PartitionedDataModule,
    stratified_order,
)
from lightning_plugins.optional_packages import requires

_NUM_TRAIN, _NUM_VALIDATION = 1000, 297


class DigitsDataModule(PartitionedDataModule):
    """1797 handwritten digits: 1000 for training, 297 for validation, 500 for test.

    Batches are ``(images, labels)``: float32 ``(batch, 1, 8, 8)`` in [0, 1] and int64 ``(batch,)``
    in 0..9. The three parts have the same class proportions and contain the same samples for every
    seed. ``setup`` assigns them to ``train_dataset``, ``val_dataset`` and ``test_dataset``.
    Prediction uses the test part.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI (CC BY 4.0), as
    ``sklearn.datasets.load_digits``.

    Args:
        batch_size: Samples per batch on each rank.
        seed: Seed of the order of the training samples, their shifts, and the label noise.
        label_noise: Fraction of the training labels that are replaced by another label, in [0, 1].
        random_shift: Largest random shift of a training image along each axis in pixels, 0 to 7,
            drawn at every fetch. Pixels from outside the image are black.
        num_workers: Processes that prefetch batches.
        partition: Gives each rank a label-skewed share of its own, based on the labels without
            noise.

    Raises:
        ValueError: An argument is outside its range.
        ImportError: In ``setup``, if scikit-learn is missing.
    """

    num_classes = 10
    train_dataset: "Digits"
    val_dataset: "Digits"
    test_dataset: "Digits"

    def __init__(
        self,
        batch_size: int = 25,
        seed: int = 0,
        label_noise: float = 0.0,
        random_shift: int = 0,
        num_workers: int = 0,
        partition: DirichletPartition | None = None,
    ) -> None:
        super().__init__(batch_size, seed, num_workers, partition)
        if not 0 <= label_noise <= 1:
            raise ValueError(f"label_noise={label_noise}: expected a fraction in [0, 1]")
        if not 0 <= random_shift < 8:
            raise ValueError(f"random_shift={random_shift}: expected 0 to 7 pixels")
        self.label_noise = label_noise
        self.random_shift = random_shift

    def setup(self, stage: str | None = None) -> None:
        """Load the digits and split them into the three parts."""
        with requires("scikit-learn", by="DigitsDataModule", extra="vision"):
            from sklearn.datasets import load_digits

        pixels, digit = load_digits(return_X_y=True)
        images = torch.from_numpy(pixels.reshape(-1, 1, 8, 8) / 16).float()
        labels = torch.from_numpy(digit).long()
        order = stratified_order(labels)
        train, validation, test = np.split(order, [_NUM_TRAIN, _NUM_TRAIN + _NUM_VALIDATION])
        self.train_indices, self.val_indices, self.test_indices = train, validation, test
        # Without noise: the partition must not separate noisy from correct labels.
        self.partition_labels = labels[train]
        noisy = with_label_noise(labels[train], self.label_noise, self.num_classes, self.seed)
        self.train_dataset = Digits(images[train], noisy, self.random_shift)
        self.val_dataset = Digits(images[validation], labels[validation])
        self.test_dataset = Digits(images[test], labels[test])


class Digits(Dataset):
    """``(image, label)`` pairs in memory: float32 ``(1, height, width)`` and a class number.

    Args:
        images: Images, float32 ``(num_samples, 1, height, width)``.
        labels: Class numbers, int64 ``(num_samples,)``.
        random_shift: Largest random shift along each axis in pixels, drawn at every fetch with
            torch's global generator, which ``ResumableDataLoader`` seeds.
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
            image = shift_randomly(image, self.random_shift)
        return image, self.labels[index]

    def without_augmentation(self) -> "Digits":
        """Return the same samples without shifts, for callbacks that measure the loss."""
        return Digits(self.images, self.labels)


def shift_randomly(image: Tensor, max_pixels: int) -> Tensor:
    """Shift ``image`` ``(channels, height, width)`` by up to ``max_pixels`` along each axis.

    The shift is uniform and drawn with torch's global generator; exposed pixels are zero.
    """
    down, right = torch.randint(0, 2 * max_pixels + 1, (2,)).tolist()
    height, width = image.shape[-2:]
    return pad(image, [max_pixels] * 4)[..., down : down + height, right : right + width]


def with_label_noise(labels: Tensor, share: float, num_classes: int, seed: int) -> Tensor:
    """Replace ``round(share * num_samples)`` of the labels by another class.

    The samples and their new classes are uniform and depend only on ``seed``.
    """
    generator = torch.Generator().manual_seed(seed)
    noisy = labels.clone()
    count = round(share * len(labels))
    chosen = torch.randperm(len(labels), generator=generator)[:count]
    offset = torch.randint(1, num_classes, (count,), generator=generator)
    noisy[chosen] = (labels[chosen] + offset) % num_classes
    return noisy
