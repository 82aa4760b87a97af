"""Windows of a corpus's tokens, for language models."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import Dataset

from lightning_plugins.assets.cache import cache_folder
from lightning_plugins.datamodules.resumable import ResumableDataLoader
from lightning_plugins.datamodules.tokens.corpus import Corpus, shakespeare, text_files
from lightning_plugins.datamodules.tokens.prepared import PreparedTokens, prepare
from lightning_plugins.datamodules.tokens.tokenizer import (
    BytePairTokenizer,
    ByteTokenizer,
    Tokenizer,
)


class TokenDataModule(LightningDataModule):
    """Packed tokens of a corpus in windows of ``context_length + 1``, each batch int64.

    A batch has the shape ``(batch_size, context_length + 1)``: the first ``context_length`` tokens
    are inputs, the last ones targets. Windows follow each other with one token in common and may
    span the end of a document, which is token 0. Training visits all windows of the training part
    in an order that is a function of (seed, epoch, rank) alone, so that methods can be compared on
    the same batches; the other parts come in order.

    The tokens are prepared once, whole or not at all, into a folder named by corpus and tokenizer.

    Args:
        corpus: ``shakespeare``, the embedded default of 5 MB, or a folder of text files with
            ``train`` and ``val`` (``train.txt`` or ``train/*.txt``).
        tokenizer: ``bytes``, or ``bpe``, byte pairs learned from the training part.
        vocab_size: of ``bpe``; plain bytes have 256.
        context_length: tokens a model sees.
        batch_size: windows a batch on each rank.
        seed: of the order.
        num_workers: processes that fetch batches ahead.
        data_dir: where prepared tokens are kept; None is the user's cache.

    Raises:
        ValueError: an argument outside its range; a corpus without text, or with fewer tokens in a
            part than one window has.
        FileNotFoundError: the corpus is not there; the message says how to get it.
    """

    def __init__(
        self,
        corpus: str = "shakespeare",
        tokenizer: Literal["bytes", "bpe"] = "bytes",
        vocab_size: int = 2048,
        context_length: int = 128,
        batch_size: int = 16,
        seed: int = 0,
        num_workers: int = 0,
        data_dir: str | None = None,
    ) -> None:
        super().__init__()
        if tokenizer not in ("bytes", "bpe"):
            raise ValueError(f"tokenizer={tokenizer!r}: expected 'bytes' or 'bpe'")
        if tokenizer == "bpe" and vocab_size < 257:
            raise ValueError(
                f"vocab_size={vocab_size}: expected at least 257, the bytes and an end"
            )
        positive = {"context_length": context_length, "batch_size": batch_size}
        for name, value in positive.items():
            if value < 1:
                raise ValueError(f"{name}={value}: expected at least 1")
        if corpus != "shakespeare" and not Path(corpus).is_dir():
            raise ValueError(
                f"corpus={corpus!r}: expected 'shakespeare' or a folder with train.txt and val.txt"
            )
        self.corpus = corpus
        self.tokenizer = tokenizer
        self.vocab_size = vocab_size if tokenizer == "bpe" else ByteTokenizer.vocab_size
        self.context_length = context_length
        self.batch_size = batch_size
        self.seed = seed
        self.num_workers = num_workers
        self.data_dir = Path(data_dir) if data_dir else cache_folder().parent / "tokens"
        self.bytes_per_token: dict[str, float] = {}

    def prepare_data(self) -> None:
        """Write the token files, if they are not there yet."""
        corpus = self._corpus()
        folder = self._folder(corpus)
        if folder.exists():
            return
        tokenizer: Tokenizer = ByteTokenizer()
        if self.tokenizer == "bpe":
            tokenizer = BytePairTokenizer.learned_from(corpus.parts["train"], self.vocab_size)
            if tokenizer.vocab_size < self.vocab_size:
                raise ValueError(
                    f"vocab_size={self.vocab_size}: the corpus has pairs for no more than "
                    f"{tokenizer.vocab_size}"
                )
        try:
            prepare(folder, corpus, tokenizer)
        except OSError:
            if not folder.exists():  # else another process was faster
                raise

    def setup(self, stage: str | None = None) -> None:
        """Map the token files."""
        corpus = self._corpus()
        prepared = PreparedTokens.load(self._folder(corpus), corpus.sha256)
        self.bytes_per_token = prepared.bytes_per_token
        self.train_dataset = self._windows(prepared, "train")
        self.val_dataset = self._windows(prepared, "val")
        if corpus.parts["test"]:
            self.test_dataset = self._windows(prepared, "test")

    def train_dataloader(self) -> ResumableDataLoader:
        """Windows of the training part, in the order of the epoch."""
        return self._loader(self.train_dataset, shuffle=True)

    def val_dataloader(self) -> ResumableDataLoader:
        """Windows of the validation part, in order."""
        return self._loader(self.val_dataset, shuffle=False)

    def test_dataloader(self) -> ResumableDataLoader:
        """Windows of the test part, in order.

        Raises:
            ValueError: the corpus has no test part.
        """
        if not hasattr(self, "test_dataset"):
            raise ValueError(f"corpus={self.corpus!r} has no test part: add test.txt to it")
        return self._loader(self.test_dataset, shuffle=False)

    def _corpus(self) -> Corpus:
        return shakespeare() if self.corpus == "shakespeare" else text_files(Path(self.corpus))

    def _folder(self, corpus: Corpus) -> Path:
        kind = "bytes" if self.tokenizer == "bytes" else f"bpe{self.vocab_size}"
        return self.data_dir / f"{corpus.name}-{kind}-{corpus.sha256[:12]}"

    def _windows(self, prepared: PreparedTokens, part: str) -> "TokenWindows":
        tokens = prepared.tokens(part)
        if len(tokens) <= self.context_length:
            raise ValueError(
                f"context_length={self.context_length}: {part} of corpus={self.corpus!r} has only "
                f"{len(tokens)} tokens; reduce it or add text"
            )
        return TokenWindows(tokens, self.context_length)

    def _loader(self, dataset: Dataset, shuffle: bool) -> ResumableDataLoader:
        trainer = self.trainer
        return ResumableDataLoader(
            dataset,
            self.batch_size,
            shuffle=shuffle,
            seed=self.seed,
            num_workers=self.num_workers,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )


class TokenWindows(Dataset):
    """Consecutive windows of ``context_length + 1`` tokens that share one token with the next.

    Args:
        tokens: unsigned integers ``(num_tokens,)``.
        context_length: targets in a window.
    """

    def __init__(self, tokens: np.ndarray, context_length: int) -> None:
        self.tokens = tokens
        self.context_length = context_length

    def __len__(self) -> int:
        return (len(self.tokens) - 1) // self.context_length

    def __getitem__(self, index: int) -> Tensor:
        start = index * self.context_length
        window = self.tokens[start : start + self.context_length + 1]
        return torch.from_numpy(window.astype(np.int64))
