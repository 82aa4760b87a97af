"""Image classification data with the augmentations of the papers."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_plugins.datamodules.image_source import (
    KNOWN_DATASETS,
    ImageSource,
    LabelledImages,
    from_folder,
    from_hub,
)
from lightning_plugins.datamodules.partition import (
    DirichletPartition,
    PartitionedDataModule,
    stratified_order,
)
from lightning_plugins.optional_packages import requires

_IMAGES_FOR_STATISTICS = 2000


class ImageDataModule(PartitionedDataModule):
    """CIFAR-10, CIFAR-100, Tiny ImageNet, any image dataset on the hub, or a folder of images.

    Batches are ``(images, labels)``: float32 ``(batch, in_channels, image_size, image_size)`` and
    int64 ``(batch,)``. ``setup`` assigns the parts to ``train_dataset``, ``val_dataset`` (None if
    there is no validation data) and ``test_dataset`` (None if there is no labelled test data), and
    sets ``num_classes``, ``mean`` and ``std``. A dataset with a validation part but no test part is
    tested on its validation part. The test part is never used for validation; set
    ``validation_fraction`` to hold out training images.

    The augmentation crops, flips and cuts out, in this order. It draws from torch's global
    generator, which ``ResumableDataLoader`` seeds for every batch, so it is reproducible.

    Source of the default augmentation: He et al., arXiv 1512.03385, section 4.2; of cutout: DeVries
    and Taylor, arXiv 1708.04552.

    Args:
        dataset: ``cifar10``, ``cifar100``, ``tiny-imagenet`` or a name on the Hugging Face hub;
            ignored if ``data_dir`` is given.
        data_dir: Folder with ``train/<class>/*.png`` and ``test/`` or ``val/``, with Parquet files,
            or with a saved ``DatasetDict``.
        image_size: Height and width in pixels after resizing; None keeps the dataset's size.
        in_channels: 3 for colour, 1 for greyscale.
        batch_size: Samples per batch on each rank.
        crop_padding: Black pixels added on each side before a random crop of the original size; 0
            disables cropping.
        flip: Mirror images horizontally with probability 1/2.
        cutout: Side in pixels of a square that is set to the mean colour (black without
            ``normalize``); its centre is uniform over the image. 0 disables cutout.
        cutout_probability: Probability of cutout for each image.
        validation_fraction: Fraction of the training images to hold out for validation, in [0, 1):
            stratified by class, and the same images for every seed.
        normalize: Subtract the channel mean of the training images and divide by their standard
            deviation: published values for the three named datasets, otherwise estimated from 2000
            images. Without it images are in [0, 1], as the attacks require.
        image_column: Image column of a hub dataset or Parquet file; None if there is only one.
        label_column: Label column of a hub dataset or Parquet file; None if there is only one.
        seed: Seed of order and augmentation.
        num_workers: Processes that prefetch batches.
        partition: Gives each rank a label-skewed share of its own.

    Raises:
        ValueError: An argument is outside its range or does not fit the data.
        ImportError: In ``setup``, if ``datasets`` or ``torchvision`` is missing.
        FileNotFoundError: In ``prepare_data``, if the data is neither local nor reachable.
    """

    def __init__(
        self,
        dataset: str = "cifar10",
        data_dir: str | None = None,
        image_size: int | None = None,
        in_channels: int = 3,
        batch_size: int = 128,
        crop_padding: int = 4,
        flip: bool = True,
        cutout: int = 0,
        cutout_probability: float = 0.5,
        validation_fraction: float = 0.0,
        normalize: bool = True,
        image_column: str | None = None,
        label_column: str | None = None,
        seed: int = 0,
        num_workers: int = 0,
        partition: DirichletPartition | None = None,
    ) -> None:
        super().__init__(batch_size, seed, num_workers, partition)
        if image_size is not None and image_size < 1:
            raise ValueError(f"image_size={image_size}: expected at least 1 pixel")
        if in_channels not in (1, 3):
            raise ValueError(f"in_channels={in_channels}: expected 3 for colour or 1 for greyscale")
        for name, value in {"crop_padding": crop_padding, "cutout": cutout}.items():
            if value < 0:
                raise ValueError(f"{name}={value}: expected at least 0")
        if not 0 <= cutout_probability <= 1:
            raise ValueError(f"cutout_probability={cutout_probability}: expected 0 to 1")
        if not 0 <= validation_fraction < 1:
            raise ValueError(
                f"validation_fraction={validation_fraction}: expected a fraction in [0, 1)"
            )
        self.dataset = dataset
        self.data_dir = data_dir
        self.image_size = image_size
        self.in_channels = in_channels
        self.crop_padding = crop_padding
        self.flip = flip
        self.cutout = cutout
        self.cutout_probability = cutout_probability
        self.validation_fraction = validation_fraction
        self.normalize = normalize
        self.image_column = image_column
        self.label_column = label_column
        self.num_classes: int | None = None
        self.mean: list[float] | None = None
        self.std: list[float] | None = None

    def prepare_data(self) -> None:
        """Download the dataset to the local cache unless it is a folder."""
        self._read()

    def setup(self, stage: str | None = None) -> None:
        """Read the parts and build their transforms."""
        source = self._read()
        self.num_classes = source.num_classes
        size = self._size(source)
        everything = torch.arange(len(source.train.labels))
        train, validation = everything, everything[:0]
        if self.validation_fraction:
            order = torch.from_numpy(stratified_order(source.train.labels))
            held_out = max(1, round(self.validation_fraction * len(order)))
            validation, train = order[:held_out], order[held_out:]
        if self.normalize:
            self.mean, self.std = self._statistics(source.train, train, size)
        augmented = self._transform(size, is_augmented=True)
        plain = self._transform(size, is_augmented=False)
        self.train_dataset = TransformedImages(source.train, train, augmented, plain)
        self.partition_labels = source.train.labels[train]
        self.val_dataset = None
        if len(validation):
            self.val_dataset = TransformedImages(source.train, validation, plain)
        elif source.validation is not None:
            self.val_dataset = _all(source.validation, plain)
        self.test_dataset = None if source.test is None else _all(source.test, plain)

    def test_dataloader(self) -> DataLoader:
        """Return a loader of the test part in order.

        Raises:
            ValueError: There is no labelled test part.
        """
        if self.test_dataset is None:
            raise ValueError(f"{self._what()} has no labelled test part: add test/<class>/*.png")
        return super().test_dataloader()

    def _what(self) -> str:
        return f"data_dir={self.data_dir!r}" if self.data_dir else f"dataset={self.dataset!r}"

    def _read(self) -> ImageSource:
        with requires("torchvision", by="ImageDataModule", extra="vision"):
            import torchvision  # noqa: F401
        if self.data_dir is not None:
            return from_folder(self.data_dir, self.image_column, self.label_column)
        return from_hub(self.dataset, self.image_column, self.label_column)

    def _size(self, source: ImageSource) -> int:
        if self.image_size is not None:
            return self.image_size
        if self.data_dir is None and self.dataset in KNOWN_DATASETS:
            return KNOWN_DATASETS[self.dataset].image_size
        width, height = source.train.read(0).size
        if width != height:
            raise ValueError(
                f"image_size=None: the images in {self._what()} are not square (the first has "
                f"{width}x{height} pixels); set image_size"
            )
        return width

    def _transform(self, size: int, is_augmented: bool) -> Any:
        from torchvision.transforms import v2

        # Resizing does not change images that already have this size.
        steps: list[Any] = [v2.ToImage(), v2.Resize((size, size), antialias=True)]
        if is_augmented and self.crop_padding:
            steps.append(v2.RandomCrop(size, padding=self.crop_padding))
        if is_augmented and self.flip:
            steps.append(v2.RandomHorizontalFlip())
        steps += [v2.ToDtype(torch.float32, scale=True), v2.ToPureTensor()]
        if self.mean is not None and self.std is not None:
            steps.append(v2.Normalize(self.mean, self.std))
        if is_augmented and self.cutout:
            steps.append(Cutout(self.cutout, self.cutout_probability))
        grey_or_colour = v2.Lambda(_AsMode("L" if self.in_channels == 1 else "RGB"))
        return v2.Compose([grey_or_colour, *steps])

    def _statistics(
        self, images: LabelledImages, indices: Tensor, size: int
    ) -> tuple[list[float], list[float]]:
        known = KNOWN_DATASETS.get(self.dataset) if self.data_dir is None else None
        if known is not None and self.in_channels == 3:
            return list(known.mean), list(known.std)
        self.mean = self.std = None
        plain = self._transform(size, is_augmented=False)
        every = -(-len(indices) // _IMAGES_FOR_STATISTICS)
        sample = TransformedImages(images, indices[::every], plain)
        pixels = torch.stack([sample[i][0] for i in range(len(sample))])
        std, mean = torch.std_mean(pixels.double(), dim=(0, 2, 3), correction=0)
        # A constant channel is shifted, but not scaled.
        return mean.tolist(), torch.where(std > 0, std, 1.0).tolist()


class TransformedImages(Dataset):
    """Pairs ``(transform(image), label)`` for a selection of images.

    Args:
        images: Images and class numbers.
        indices: Selected images, int64 ``(num_samples,)``.
        transform: Maps a Pillow image to float32 ``(channels, height, width)``.
        plain: The transform without augmentation; None if ``transform`` does not augment.
    """

    def __init__(
        self, images: LabelledImages, indices: Tensor, transform: Any, plain: Any = None
    ) -> None:
        self.images = images
        self.indices = indices
        self.transform = transform
        self.plain = transform if plain is None else plain

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        index = int(self.indices[position])
        return self.transform(self.images.read(index)), self.images.labels[index]

    def without_augmentation(self) -> "TransformedImages":
        """Return the same samples without augmentation, for callbacks that measure the loss."""
        return TransformedImages(self.images, self.indices, self.plain)


class _AsMode:
    """Converts a Pillow image to a mode; unlike a lambda, it can be sent to a worker process."""

    def __init__(self, mode: str) -> None:
        self._mode = mode

    def __call__(self, image: Any) -> Any:
        return image.convert(self._mode)


def _all(images: LabelledImages, transform: Any) -> TransformedImages:
    return TransformedImages(images, torch.arange(len(images.labels)), transform)


class Cutout(torch.nn.Module):
    """Sets a square with a uniformly drawn centre to zero; the image border clips it.

    Draws from torch's global generator.

    Source: DeVries and Taylor, arXiv 1708.04552, section 3.2; applied with a probability as in
    the released code of the late-phase SAM paper.

    Args:
        size: Side of the square in pixels.
        probability: Probability of applying it.
    """

    def __init__(self, size: int, probability: float = 0.5) -> None:
        super().__init__()
        self.size = size
        self.probability = probability

    def forward(self, image: Tensor) -> Tensor:
        """Return a copy of ``image`` ``(channels, height, width)`` with the square set to zero."""
        if torch.rand(()) >= self.probability:
            return image
        height, width = image.shape[-2:]
        top = int(torch.randint(height, ())) - self.size // 2
        left = int(torch.randint(width, ())) - self.size // 2
        image = image.clone()
        image[..., max(top, 0) : top + self.size, max(left, 0) : left + self.size] = 0
        return image
