"""The DataModule of image pairs with change captions: published data sets or synthetic tiles."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch.utils.data import DataLoader

from lightning_plugins.assets.cache import cache_folder
from lightning_plugins.checkpoints import CheckedLoading
from lightning_plugins.datamodules.change_captioning.caption_files import (
    SPLITS,
    PairRecord,
    read_captions,
)
from lightning_plugins.datamodules.change_captioning.consistency import Consistency, consistency
from lightning_plugins.datamodules.change_captioning.image_pairs import (
    CaptionMode,
    ImagePairs,
    PairCache,
    collate,
    read_pair,
)
from lightning_plugins.datamodules.change_captioning.synthetic_tiles import generated_folder
from lightning_plugins.datamodules.resumable import ResumableDataLoader
from lightning_plugins.optional_packages import requires

_MODES = ("flatten", "random", "first")


class ChangeCaptionDataModule(CheckedLoading, LightningDataModule):
    """Pairs of images of one place at two times, with captions of the difference.

    Batches are dictionaries of ``images``, float32 ``(batch, 2, 3, height, width)`` in [0, 1],
    ``id``, ``caption`` (the training target), ``references`` (all captions) and, if it is known of
    a pair of the batch, ``changed`` (None for the others). Training uses the train part; validation
    uses the val part, never the test part.

    If the pairs of a batch have different sizes, they are resized (bicubic, without keeping the
    ratio of the sides, as the processor of CCExpert does): to the size that the Trainer's module
    states in its attribute ``image_size``, as ``ChangeCaptioner`` does, or else to the largest
    height and width of the batch.

    Without ``folder`` the pairs are synthetic 64-pixel tiles, which are generated from ``seed`` at
    the first use and cached as an image folder (5 ms per pair); see
    :func:`~lightning_plugins.datamodules.change_captioning.synthetic_tiles.generated_folder`. With
    ``folder`` they come from a local copy of LEVIR-CC, LEVIR-MCI, Dubai-CC, SECOND-CC, WHU-CDC or
    CC-Foundation; see
    :func:`~lightning_plugins.datamodules.change_captioning.caption_files.read_captions`. For images
    with more than 8 bits per value or with other bands see
    :func:`~lightning_plugins.datamodules.change_captioning.image_pairs.read_pair`.

    Args:
        folder: Folder of the data set, its caption file, or a YAML list of caption files; None
            generates tiles.
        batch_size: Pairs per batch on each rank.
        caption_mode: Captions of the training part. ``flatten`` makes each caption of a pair a
            sample (the first two stages of CCExpert), ``random`` draws one caption per pair in each
            epoch (its third stage), and ``first`` always takes the first. It may be changed between
            epochs (:class:`~lightning_plugins.callbacks.StagedTraining`).
        augment: Rotate and mirror both images of a training pair in the same way. Do not use it
            with captions that name directions, such as those of the tiles and of LEVIR-CC.
        skip_bad: Drop empty captions. Read every pair of a part once in ``setup`` and drop the
            pairs with missing or broken files or with images of different sizes. Warnings give
            their numbers. With False the first such pair raises an error.
        before: First image of the only pair for ``predict``; requires ``after``.
        after: Second image of that pair.
        training_folder: Folder, or YAML list, of another data set for the training part, as the
            first two stages of CCExpert use CC-Foundation. It may be changed between epochs.
        num_train: Number of training tiles to generate.
        num_val: Number of validation tiles to generate.
        num_test: Number of test tiles to generate.
        seed: Seed of the tiles, of the order, and of the random captions.
        num_workers: Worker processes of each DataLoader.
        data_dir: Cache folder of the tiles; None for the user's cache.

    Raises:
        ValueError: An argument is outside its range; in ``setup``, a caption file or an image is
            invalid (the message names it).
        ImportError: Pillow is not installed (raised by ``prepare_data``).
    """

    def __init__(
        self,
        folder: str | None = None,
        batch_size: int = 32,
        caption_mode: CaptionMode = "random",
        augment: bool = False,
        skip_bad: bool = False,
        before: str | None = None,
        after: str | None = None,
        training_folder: str | None = None,
        num_train: int = 1500,
        num_val: int = 200,
        num_test: int = 200,
        seed: int = 0,
        num_workers: int = 0,
        data_dir: str | None = None,
    ) -> None:
        super().__init__()
        if caption_mode not in _MODES:
            raise ValueError(
                f"caption_mode={caption_mode!r}: expected one of {', '.join(map(repr, _MODES))}"
            )
        if (before is None) != (after is None):
            raise ValueError(f"before={before!r}, after={after!r}: expected both or neither")
        least = {"batch_size": 1, "num_train": 1, "num_val": 1, "num_test": 1}
        given = {"batch_size": batch_size, "num_train": num_train, "num_val": num_val}
        given |= {"num_test": num_test, "seed": seed, "num_workers": num_workers}
        for name, value in given.items():
            if value < least.get(name, 0):
                raise ValueError(f"{name}={value}: expected at least {least.get(name, 0)}")
        self.folder = None if folder is None else Path(folder)
        self.batch_size = batch_size
        self.caption_mode = caption_mode
        self.augment = augment
        self.skip_bad = skip_bad
        self.training_folder = training_folder
        self.own_pair = None if before is None or after is None else (Path(before), Path(after))
        self.sizes = dict(zip(SPLITS, (num_train, num_val, num_test), strict=True))
        self.seed = seed
        self.num_workers = num_workers
        self.data_dir = Path(data_dir) if data_dir else cache_folder().parent / "change_captions"
        self._read: dict[Path, list[PairRecord]] = {}
        self._images = PairCache()
        self._checked: dict[tuple[Path, str], list[PairRecord]] = {}

    def prepare_data(self) -> None:
        """Generate the tiles if they are used and do not exist."""
        with requires("Pillow", by="ChangeCaptionDataModule", extra="vision"):
            import PIL  # noqa: F401
        if self.folder is None and self.own_pair is None:
            generated_folder(self.data_dir, self.sizes, self.seed)

    def setup(self, stage: str | None = None) -> None:
        """Read the caption file and check that the images of the stage's part exist."""
        if self.own_pair is None or stage != "predict":
            parts = {"validate": "val", "test": "test", "predict": "test"}
            self.records(parts.get(stage or "fit", "train"))

    def records(self, split: str) -> list[PairRecord]:
        """Return the pairs of ``train``, ``val`` or ``test``, whose files exist."""
        folder = self.folder
        if split == "train" and self.training_folder is not None:
            folder = Path(self.training_folder)
        folder = folder or generated_folder(self.data_dir, self.sizes, self.seed)
        if folder not in self._read:
            self._read[folder] = read_captions(folder, self.skip_bad)
        if (folder, split) not in self._checked:
            chosen = [record for record in self._read[folder] if record.split == split]
            if not chosen:
                raise ValueError(f"{folder} has no pair with split={split!r}")
            self._checked[folder, split] = self._with_files(chosen, folder, split)
        return self._checked[folder, split]

    def consistency(self, split: str) -> Consistency:
        """Print and return the contradictions between captions, flags and masks of a part."""
        found = consistency(self.records(split))
        rank_zero_info(f"{split}: {found}")
        return found

    def training_captions(self) -> list[str]:
        """Return all captions of the training part, from which a tokenizer can learn its words."""
        return [caption for record in self.records("train") for caption in record.captions]

    def train_dataloader(self) -> ResumableDataLoader:
        """Return shuffled batches of the training part, in the current ``caption_mode``."""
        return ResumableDataLoader.for_trainer(
            self.trainer,
            ImagePairs(self.records("train"), self.caption_mode, self.augment, self._cache()),
            self.batch_size,
            seed=self.seed,
            num_workers=self.num_workers,
            collate_fn=self._collate(),
        )

    def val_dataloader(self) -> DataLoader:
        """Return batches of the validation part, in order."""
        return self._in_order(self.records("val"))

    def test_dataloader(self) -> DataLoader:
        """Return batches of the test part, in order."""
        return self._in_order(self.records("test"))

    def predict_dataloader(self) -> DataLoader:
        """Return the pair of ``before`` and ``after`` if they are set, else the test part."""
        if self.own_pair is None:
            return self._in_order(self.records("test"))
        before, after = self.own_pair
        return self._in_order([PairRecord(after.stem, before, after, split="test")])

    def _in_order(self, records: list[PairRecord]) -> DataLoader:
        return DataLoader(
            ImagePairs(records, cache=self._cache()),
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            collate_fn=self._collate(),
        )

    def _cache(self) -> PairCache | None:
        """Worker processes would each fill a cache of their own and lose it after an epoch."""
        return None if self.num_workers else self._images

    def _collate(self) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        module = None if self.trainer is None else self.trainer.lightning_module
        side = getattr(module, "image_size", None)
        return partial(collate, side=side if isinstance(side, int) else None)

    def _with_files(self, records: list[PairRecord], folder: Path, split: str) -> list[PairRecord]:
        if self.skip_bad:
            if kept := _readable(records):
                return kept
            raise ValueError(f"{folder}: skip_bad=True left no pair with split={split!r}")
        files = (file for record in records for file in (record.before, record.after))
        if missing := next((file for file in files if not file.is_file()), None):
            raise ValueError(f"{missing} is missing; skip_bad=True drops such pairs")
        return records


def _readable(records: list[PairRecord]) -> list[PairRecord]:
    errors: dict[tuple[Path, Path], str] = {}
    for record in {(record.before, record.after): record for record in records}.values():
        try:
            read_pair(record)
        except ValueError as error:
            errors[record.before, record.after] = str(error)
    kept = [record for record in records if (record.before, record.after) not in errors]
    if reasons := list(errors.values()):
        rank_zero_warn(
            f"skip_bad=True dropped {len(records) - len(kept)} of {len(records)} pairs; the first: "
            f"{reasons[0]}"
        )
    return kept
