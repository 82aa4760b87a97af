"""The map-style data set of image pairs, with joint augmentation of both images."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_plugins.datamodules.change_captioning.caption_files import PairRecord
from lightning_plugins.inputs import opened_image
from lightning_plugins.optional_packages import requires

CaptionMode = Literal["flatten", "random", "first"]


class ImagePairs(Dataset):
    """A data set of ``{"images", "id", "caption", "references", "changed"}`` per sample.

    Args:
        records: The pairs.
        caption_mode: ``flatten`` makes each caption of each pair a sample; ``random`` draws a
            caption from torch's global generator each time a pair is read; ``first`` always takes
            the first caption.
        augment: Rotate and mirror both images of a pair in the same way, one of eight at random
            each time. Only for captions that name no directions.
    """

    def __init__(
        self,
        records: Sequence[PairRecord],
        caption_mode: CaptionMode = "first",
        augment: bool = False,
    ) -> None:
        self.records = records
        self.caption_mode = caption_mode
        self.augment = augment
        self._samples = [
            (pair, caption)
            for pair, record in enumerate(records)
            for caption in range(len(record.captions) if caption_mode == "flatten" else 1)
        ]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        pair, number = self._samples[index]
        record = self.records[pair]
        if self.caption_mode == "random":
            number = int(torch.randint(len(record.captions), ()))
        images = read_pair(record)
        if self.augment:
            images = _turned(images, int(torch.randint(8, ())))
        sample: dict[str, Any] = {"images": images, "id": record.id}
        if record.captions:
            sample |= {"caption": record.captions[number], "references": list(record.captions)}
        if record.changed is not None:
            sample["changed"] = record.changed
        return sample


def read_pair(record: PairRecord) -> Tensor:
    """Read both images as float32 ``(2, 3, height, width)`` in [0, 1].

    Raises:
        ValueError: A file is missing, broken, too large or not an 8-bit image, or the sizes differ.
    """
    before, after = _picture(record.before), _picture(record.after)
    if before.shape != after.shape:
        raise ValueError(
            f"pair {record.id!r}: {record.before} has {before.shape[2]}x{before.shape[1]} pixels, "
            f"{record.after} has {after.shape[2]}x{after.shape[1]}; expected equal sizes"
        )
    return torch.stack([before, after])


def _picture(file: Any) -> Tensor:
    with requires("Pillow", by="reading images", extra="vision"):
        from PIL import UnidentifiedImageError
    try:
        with opened_image(file) as picture:
            if picture.mode not in ("RGB", "RGBA", "P", "L"):
                raise ValueError(
                    f"{file} has the pixel format {picture.mode!r}, expected 8-bit colour; scale "
                    "and convert it first"
                )
            pixels = bytearray(picture.convert("RGB").tobytes())
            width, height = picture.size
    except FileNotFoundError:
        raise ValueError(f"{file} is missing") from None
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        raise ValueError(f"{file} is not a readable image: {error}") from error
    values = torch.frombuffer(pixels, dtype=torch.uint8).view(height, width, 3)
    return values.permute(2, 0, 1).float() / 255


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a batch: images ``(batch, 2, 3, height, width)``, and lists of all other fields.

    Raises:
        ValueError: The pairs have different sizes.
    """
    sizes = {tuple(sample["images"].shape[-2:]) for sample in samples}
    if len(sizes) > 1:
        raise ValueError(
            f"pairs of different sizes {sorted(sizes)} in one batch: resize the images, or set "
            "batch_size=1"
        )
    batch: dict[str, Any] = {
        name: [sample[name] for sample in samples]
        for name in samples[0]
        if name != "images" and all(name in sample for sample in samples)
    }
    return batch | {"images": torch.stack([sample["images"] for sample in samples])}


def _turned(images: Tensor, way: int) -> Tensor:
    images = images.rot90(way % 4, (-2, -1))
    return images.flip(-1) if way >= 4 else images
