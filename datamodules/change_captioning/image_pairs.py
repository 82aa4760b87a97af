"""Image pairs as tensors, with both images of a pair augmented alike."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_plugins.datamodules.change_captioning.caption_files import PairRecord

CaptionMode = Literal["flatten", "random", "first"]


class ImagePairs(Dataset):
    """``{"images", "id", "caption", "references", "changed"}`` of each pair.

    Args:
        records: the pairs.
        caption_mode: which caption a sample has: with ``flatten`` each caption of each pair is a
            sample of its own, with ``random`` a pair has another one at each visit, drawn from
            torch's global generator, with ``first`` always the first.
        augment: turn and mirror both images of a pair alike, one of eight ways at each visit. Only
            where captions name no directions.
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
    """Both images, float32 ``(2, 3, height, width)`` in [0, 1].

    Raises:
        ValueError: a file that is missing, broken or no 8-bit picture, or two of different sizes.
    """
    before, after = _picture(record.before), _picture(record.after)
    if before.shape != after.shape:
        raise ValueError(
            f"pair {record.id!r}: {record.before} has {before.shape[2]}x{before.shape[1]} pixels, "
            f"{record.after} has {after.shape[2]}x{after.shape[1]}"
        )
    return torch.stack([before, after])


def _picture(file: Any) -> Tensor:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ImportError('images need Pillow: pip install "lightning-plugins[vision]"') from error
    try:
        with Image.open(file) as picture:
            if picture.mode not in ("RGB", "RGBA", "P", "L"):
                raise ValueError(
                    f"{file} has the pixel format {picture.mode!r}, not 8-bit colour; convert it, "
                    "with a scaling of your choice"
                )
            pixels = bytearray(picture.convert("RGB").tobytes())
            width, height = picture.size
    except FileNotFoundError:
        raise ValueError(f"{file} is missing") from None
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        raise ValueError(f"{file} is no readable picture: {error}") from error
    values = torch.frombuffer(pixels, dtype=torch.uint8).view(height, width, 3)
    return values.permute(2, 0, 1).float() / 255


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch: images ``(batch, 2, 3, height, width)``, all else in lists.

    Raises:
        ValueError: pairs of different sizes.
    """
    sizes = {tuple(sample["images"].shape[-2:]) for sample in samples}
    if len(sizes) > 1:
        raise ValueError(
            f"pairs of sizes {sorted(sizes)} in one batch: resize them beforehand, or set "
            "batch_size to 1"
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
