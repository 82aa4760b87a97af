"""Image pairs with captions of what changed: the field's data sets, or made-up tiles."""

import importlib.util
from pathlib import Path

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader

from lightning_plugins.assets.cache import cache_folder
from lightning_plugins.datamodules.change_captioning.caption_files import (
    SPLITS,
    PairRecord,
    read_captions,
)
from lightning_plugins.datamodules.change_captioning.image_pairs import (
    CaptionMode,
    ImagePairs,
    collate,
    read_pair,
)
from lightning_plugins.datamodules.change_captioning.synthetic_tiles import generated_folder
from lightning_plugins.datamodules.resumable import ResumableDataLoader

_MODES = ("flatten", "random", "first")


class ChangeCaptionDataModule(LightningDataModule):
    """Pairs of images of one place at two times, each with captions of the difference.

    Batches are dictionaries: ``images`` float32 ``(batch, 2, 3, height, width)`` in [0, 1], ``id``,
    ``caption`` (the one to learn), ``references`` (all of them) and, where it is known,
    ``changed``. Training goes over the train part, validation over val and never over test.

    Without ``folder`` the pairs are synthetic 64-pixel tiles, made from ``seed`` when first needed
    and kept as an image folder (5 ms a pair): see
    :func:`~lightning_plugins.datamodules.change_captioning.synthetic_tiles.generated_folder`. With
    one, they are a data set that you have: LEVIR-CC, Dubai-CC, SECOND-CC or WHU-CDC (a JSON file of
    their common form beside ``images/<split>/A`` and ``B``), or records of CC-Foundation; see
    :func:`~lightning_plugins.datamodules.change_captioning.caption_files.read_captions`.

    Args:
        folder: of the data set; None makes tiles.
        batch_size: pairs a batch on each rank.
        caption_mode: of the training part: each caption of a pair is a sample (``flatten``, as in
            the first two stages of CCExpert), a pair has a ``random`` one at each visit (its third
            stage), or always the ``first``. May be changed between epochs
            (:class:`~lightning_plugins.callbacks.StagedTraining`).
        augment: turn and mirror both images of a training pair alike. Not with captions that name
            directions, as those of the tiles and of LEVIR-CC do.
        skip_bad: read every pair once at the beginning, leave out those whose files are missing or
            broken or differ in size, and say how many; else the first such pair is an error.
        before: with ``after``, the only pair that ``predict`` captions.
        after: the second image of that pair.
        training_folder: of a data set that the training part is taken from instead, as the first
            two stages of CCExpert take CC-Foundation. May be changed between epochs.
        num_train: tiles to make for training.
        num_val: for validation.
        num_test: for test.
        seed: of the tiles, of the order, and of which caption a pair has.
        num_workers: processes that fetch batches ahead.
        data_dir: where made tiles are kept; None is the user's cache.

    Raises:
        ValueError: an argument outside its range; in ``setup``, a caption file or pictures that
            cannot be used, by name.
        ImportError: in ``prepare_data``, without Pillow.
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
            raise ValueError(f"before={before!r}, after={after!r}: give both images of a pair")
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

    def prepare_data(self) -> None:
        """Make the tiles, if they are wanted and not there."""
        if importlib.util.find_spec("PIL") is None:
            raise ImportError('images need Pillow: pip install "lightning-plugins[vision]"')
        if self.folder is None and self.own_pair is None:
            generated_folder(self.data_dir, self.sizes, self.seed)

    def setup(self, stage: str | None = None) -> None:
        """Find the pairs and their files."""
        if self.own_pair is None or stage != "predict":
            self.records("val" if stage == "validate" else "test" if stage == "test" else "train")

    def records(self, split: str) -> list[PairRecord]:
        """The pairs of ``train``, ``val`` or ``test``."""
        folder = self.folder
        if split == "train" and self.training_folder is not None:
            folder = Path(self.training_folder)
        folder = folder or generated_folder(self.data_dir, self.sizes, self.seed)
        if folder not in self._read:
            self._read[folder] = self._with_files(read_captions(folder))
        if not (chosen := [record for record in self._read[folder] if record.split == split]):
            raise ValueError(f"{folder} has no pair of the part {split!r}")
        return chosen

    def training_captions(self) -> list[str]:
        """All captions of the training part, from which a tokenizer may learn its words."""
        return [caption for record in self.records("train") for caption in record.captions]

    def train_dataloader(self) -> ResumableDataLoader:
        """Shuffled batches of the training part, in the present ``caption_mode``."""
        return ResumableDataLoader.for_trainer(
            self.trainer,
            ImagePairs(self.records("train"), self.caption_mode, self.augment),
            self.batch_size,
            seed=self.seed,
            num_workers=self.num_workers,
            collate_fn=collate,
        )

    def val_dataloader(self) -> DataLoader:
        """Batches of the validation part, in order."""
        return self._in_order(self.records("val"))

    def test_dataloader(self) -> DataLoader:
        """Batches of the test part, in order."""
        return self._in_order(self.records("test"))

    def predict_dataloader(self) -> DataLoader:
        """Your own pair, if you gave one, else the test part."""
        if self.own_pair is None:
            return self._in_order(self.records("test"))
        before, after = self.own_pair
        return self._in_order([PairRecord(after.stem, before, after, split="test")])

    def _in_order(self, records: list[PairRecord]) -> DataLoader:
        return DataLoader(
            ImagePairs(records),
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            collate_fn=collate,
        )

    def _with_files(self, records: list[PairRecord]) -> list[PairRecord]:
        if self.skip_bad:
            return _readable(records)
        files = (file for record in records for file in (record.before, record.after))
        if missing := next((file for file in files if not file.is_file()), None):
            raise ValueError(f"{missing} is missing; skip_bad=True leaves such pairs out")
        return records


def _readable(records: list[PairRecord]) -> list[PairRecord]:
    kept, reasons = [], []
    for record in records:
        try:
            read_pair(record)
            kept.append(record)
        except ValueError as error:
            reasons.append(str(error))
    if reasons:
        rank_zero_warn(
            f"skip_bad=True left out {len(reasons)} of {len(records)} pairs; the first: "
            f"{reasons[0]}"
        )
    return kept
