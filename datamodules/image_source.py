"""Reads labelled images from the Hugging Face hub or from a folder."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_plugins.inputs import listed, opened_image, quoted
from lightning_plugins.optional_packages import requires

if TYPE_CHECKING:
    from PIL.Image import Image

_TEST_NAMES = ("test", "validation", "valid", "val")
_VALIDATION_NAMES = ("validation", "valid", "val")


@dataclass(frozen=True)
class KnownDataset:
    """Location and statistics of a dataset that the papers use.

    Attributes:
        hub_name: Name on the Hugging Face hub.
        image_column: Column of the images.
        label_column: Column of the class numbers.
        image_size: Height and width in pixels.
        mean: Mean of red, green and blue over the training images, in [0, 1].
        std: Standard deviation of red, green and blue over the training images.
    """

    hub_name: str
    image_column: str
    label_column: str
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


KNOWN_DATASETS = {
    "cifar10": KnownDataset(
        "uoft-cs/cifar10", "img", "label", 32, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    ),
    "cifar100": KnownDataset(
        "uoft-cs/cifar100",
        "img",
        "fine_label",
        32,
        (0.5071, 0.4865, 0.4409),
        (0.2673, 0.2564, 0.2762),
    ),
    "tiny-imagenet": KnownDataset(
        "zh-plus/tiny-imagenet",
        "image",
        "label",
        64,
        (0.4802, 0.4481, 0.3975),
        (0.2770, 0.2691, 0.2821),
    ),
}


@dataclass(frozen=True)
class LabelledImages:
    """Images of one part, read one at a time, and their class numbers ``(num_samples,)``."""

    read: Callable[[int], "Image"]
    labels: Tensor


@dataclass(frozen=True)
class ImageSource:
    """The parts of a dataset; ``validation`` and ``test`` can be missing."""

    train: LabelledImages
    validation: LabelledImages | None
    test: LabelledImages | None
    num_classes: int


def from_hub(name: str, image_column: str | None, label_column: str | None) -> ImageSource:
    """Read a dataset from the Hugging Face hub, or from its local cache.

    Args:
        name: Key of ``KNOWN_DATASETS`` or name on the hub.
        image_column: Column of the images; None if there is only one.
        label_column: Column of the class numbers; None if there is only one.

    Raises:
        ImportError: The ``datasets`` package is missing.
        FileNotFoundError: The dataset is neither in the cache nor reachable.
        ValueError: A column is missing or ambiguous, or there is no training part.
    """
    with requires("datasets", by=f"dataset={name!r}", extra="vision"):
        import datasets

    known = KNOWN_DATASETS.get(name)
    if known is not None:
        image_column = image_column or known.image_column
        label_column = label_column or known.label_column
    hub_name = known.hub_name if known else name
    try:
        parts = datasets.load_dataset(hub_name)
    # The package and its HTTP client raise different exception classes for a missing dataset.
    except Exception as error:
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    else:
        cache = Path(datasets.config.HF_CACHE_HOME)
        return _from_parts(parts, f"dataset={name!r}", image_column, label_column, cache)
    raise FileNotFoundError(
        f"dataset={name!r}: {hub_name} is neither in the Hugging Face cache nor reachable "
        f"({reason}). Download it on a machine with network access with `hf download --repo-type "
        f"dataset {hub_name} --local-dir FOLDER` and set data_dir=FOLDER, or set data_dir to a "
        f"folder with train/<class>/*.png and test/<class>/*.png"
    )


def from_folder(data_dir: str, image_column: str | None, label_column: str | None) -> ImageSource:
    """Read a folder of images sorted by class, or of files of the ``datasets`` package.

    The folder contains one of

    * ``train/<class>/*.png`` (or another format that Pillow reads) and ``test/<class>`` or
      ``val/<class>``,
    * Parquet files named by part, such as ``data/train-00000-of-00001.parquet``,
    * the output of ``DatasetDict.save_to_disk``.

    Raises:
        ImportError: ``torchvision`` is missing, or ``datasets`` for the latter two formats.
        FileNotFoundError: The folder does not exist or has none of these contents.
        ValueError: The test classes differ from the training classes, or a column is missing or
            ambiguous.
    """
    folder = Path(data_dir)
    what = f"data_dir={data_dir!r}"
    if not folder.is_dir():
        raise FileNotFoundError(f"{what}: the folder does not exist")
    is_saved = (folder / "dataset_dict.json").is_file()
    if is_saved or any(folder.rglob("*.parquet")):
        with requires("datasets", by=what, extra="vision"):
            import datasets

        read = datasets.load_from_disk if is_saved else datasets.load_dataset
        return _from_parts(read(str(folder)), what, image_column, label_column, folder)
    if not (folder / "train").is_dir():
        raise FileNotFoundError(
            f"{what}: expected train/<class>/*.png, Parquet files, or a saved DatasetDict"
        )
    return _from_class_folders(folder, what)


def _from_class_folders(folder: Path, what: str) -> ImageSource:
    with requires("torchvision", by=what, extra="vision"):
        from torchvision.datasets import ImageFolder

    found = {
        name: ImageFolder(str(folder / name))
        for name in ("train", *_TEST_NAMES)
        if (folder / name).is_dir()
    }
    classes = found["train"].classes
    for name, part in found.items():
        if part.classes != classes:
            differing = sorted(set(part.classes) ^ set(classes))
            raise ValueError(
                f"{what}: {name}/ and train/ must have the same class folders, but they differ "
                f"in {', '.join(differing[:5])}"
            )
    parts = {
        name: LabelledImages(_FileReader([path for path, _ in part.samples]), _long(part.targets))
        for name, part in found.items()
    }
    return _source(parts, len(classes))


def _from_parts(
    parts: Any, what: str, image_column: str | None, label_column: str | None, folder: Path
) -> ImageSource:
    if "train" not in parts:
        raise ValueError(f"{what}: expected a part named 'train', found {listed(parts)}")
    import datasets

    features = parts["train"].features
    image_columns = [n for n, f in features.items() if isinstance(f, datasets.Image)]
    classes = [n for n, f in features.items() if isinstance(f, datasets.ClassLabel)]
    integers = [n for n, f in features.items() if str(getattr(f, "dtype", "")).startswith("int")]
    images = _column(what, "image_column", image_column, image_columns, list(features))
    labels = _column(what, "label_column", label_column, classes or integers, list(features))
    named = {
        name: LabelledImages(_ColumnReader(part, images, folder), _long(part[labels]))
        for name, part in parts.items()
        # Unpublished labels, as in the test part of a competition, are -1.
        if min(part[labels], default=-1) >= 0
    }
    if labels in classes:
        return _source(named, features[labels].num_classes)
    return _source(named, 1 + max(int(part.labels.max()) for part in named.values()))


def _column(
    what: str, argument: str, given: str | None, candidates: list[str], columns: list[str]
) -> str:
    if given is not None:
        if given not in columns:
            raise ValueError(f"{argument}={given!r}: {what} has the columns {listed(columns)}")
        return given
    if len(candidates) != 1:
        raise ValueError(
            f"{what} has {len(candidates)} columns that could be the {argument}: set {argument} "
            f"to one of {listed(candidates or columns)}"
        )
    return candidates[0]


def _source(parts: dict[str, LabelledImages], num_classes: int) -> ImageSource:
    test = next((name for name in _TEST_NAMES if name in parts), None)
    validation = next((n for n in _VALIDATION_NAMES if n in parts and n != test), None)
    return ImageSource(
        train=parts["train"],
        validation=parts[validation] if validation else None,
        test=parts[test] if test else None,
        num_classes=num_classes,
    )


def _long(labels: Any) -> Tensor:
    return torch.tensor(list(labels), dtype=torch.int64)


class _FileReader:
    def __init__(self, paths: list[str]) -> None:
        self._paths = paths

    def __call__(self, index: int) -> "Image":
        with opened_image(self._paths[index]) as image:
            image.load()
            return image


class _ColumnReader:
    def __init__(self, part: Any, column: str, folder: Path) -> None:
        import datasets

        # Undecoded, so that the size is checked before any pixel is decoded.
        self._part = part.cast_column(column, datasets.Image(decode=False))
        self._column = column
        self._folder = folder.resolve()

    def __call__(self, index: int) -> "Image":
        stored = self._part[index][self._column]
        what = f"image {index} of column {self._column!r}"
        source: Any = stored["path"]
        if stored["bytes"] is not None:
            source = io.BytesIO(stored["bytes"])
        # A table can name any file, but a folder of images names its own.
        elif not Path(source).resolve().is_relative_to(self._folder):
            raise ValueError(f"{what}: its path {quoted(source)} leads out of {self._folder}")
        with opened_image(source, what) as image:
            image.load()
            return image
