"""Windows of the tokens of a corpus for language models."""

from functools import cached_property
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader, Dataset

from lightning_plugins.assets.cache import cache_folder
from lightning_plugins.checkpoints import CheckedLoading
from lightning_plugins.datamodules.resumable import ResumableDataLoader
from lightning_plugins.datamodules.tokens.corpus import Corpus, HubCorpus, shakespeare, text_files
from lightning_plugins.datamodules.tokens.preparation import PreparedTokens, prepare
from lightning_plugins.datamodules.tokens.prompts import read_prompts
from lightning_plugins.datamodules.tokens.token_file import DocumentWindows, TokenWindows
from lightning_plugins.datamodules.tokens.tokenizers import (
    BytePairTokenizer,
    ByteTokenizer,
    HuggingFaceTokenizer,
    Tokenizer,
    sha256_of,
    to_transformers,
)


class TokenDataModule(CheckedLoading, LightningDataModule):
    """Packed tokens of a corpus in windows of ``context_length + 1``.

    A batch is int64 ``(batch_size, context_length + 1)``: the first ``context_length`` tokens are
    inputs, the last ``context_length`` tokens are targets. Consecutive windows share one token. A
    window can contain the end of a document, which has its own token. Training visits all windows
    in an order that depends only on (seed, epoch, rank), so that methods can be compared on the
    same batches. The other parts are in order.

    The tokens are prepared once and atomically, in a folder named after corpus and tokenizer. An
    interrupted preparation resumes. Byte pairs are encoded on all available cores;
    ``RAYON_NUM_THREADS`` sets the number of threads.

    In YAML, with four million documents of C4 and T5's tokenizer::

        data:
          class_path: lightning_plugins.datamodules.TokenDataModule
          init_args:
            corpus:
              name: c4
              max_documents: 4000000
            tokenizer: google-t5/t5-base
            context_length: 256

    Args:
        corpus: ``shakespeare``, the embedded default of 5 MB; a folder of text files with
            ``train`` and ``val`` (``train.txt`` or ``train/*.txt``); ``hub:NAME``, a dataset on the
            Hugging Face hub or a folder in one of its formats, such as ``hub:openwebtext``; or a
            :class:`HubCorpus` with further options.
        tokenizer: ``bytes``; ``bpe``, byte pairs learned from the training part; or the name or
            folder of a tokenizer of transformers.
        vocab_size: Vocabulary size of ``bpe``; other tokenizers ignore it.
        context_length: Tokens in the context of the model.
        batch_size: Windows per batch on each rank.
        mask_documents: Prevent attention between the documents in a window. Batches are then
            dictionaries with ``input_ids``; ``position_ids`` that restart at each document, which
            makes the attention of transformers separate the documents; and ``labels`` without the
            first token of each document.
        seed: Seed of the training order.
        num_workers: Processes that prefetch batches.
        prompts: What ``predict`` continues: a text, a list of texts, or a file with one prompt per
            line (``.txt``) or per JSON object with ``prompt`` (``.jsonl``).
        data_dir: Folder of the prepared tokens; None means the user's cache.

    Attributes:
        vocab_size: Vocabulary size of the tokenizer; for tokenizers of transformers None until
            ``setup``.
        end_of_document: Token that ends a document, which models have as their end of text; None
            until ``setup``.
        bytes_per_token: Bytes of UTF-8 per token in each part, to compute bits per byte.
        xz_bits_per_byte: Bits per byte after ``xz -9e`` of the text (at most the first 16 MiB) of
            ``val`` and ``test``.
        unigram_bits_per_token: Entropy of the token frequencies in each part.

    Raises:
        ValueError: An argument is outside its range; the corpus has no text; a part has fewer
            tokens than one window; or the prepared tokens are damaged or belong to other data.
        FileNotFoundError: The corpus is missing; the message contains the command that installs it.
    """

    def __init__(
        self,
        corpus: str | HubCorpus = "shakespeare",
        tokenizer: str = "bytes",
        vocab_size: int = 2048,
        context_length: int = 128,
        batch_size: int = 16,
        mask_documents: bool = False,
        seed: int = 0,
        num_workers: int = 0,
        data_dir: str | None = None,
        prompts: str | list[str] | None = None,
    ) -> None:
        super().__init__()
        if not tokenizer:
            raise ValueError(
                "tokenizer='': expected 'bytes', 'bpe', or a tokenizer of transformers"
            )
        if tokenizer == "bpe" and vocab_size < 257:
            raise ValueError(
                f"vocab_size={vocab_size}: expected at least 257, 256 bytes and the end"
            )
        positive = {"context_length": context_length, "batch_size": batch_size}
        for name, value in positive.items():
            if value < 1:
                raise ValueError(f"{name}={value}: expected at least 1")
        self.corpus = _hub_corpus(corpus)
        self.tokenizer = tokenizer
        self.vocab_size = {"bytes": ByteTokenizer.vocab_size, "bpe": vocab_size}.get(tokenizer)
        self.context_length = context_length
        self.batch_size = batch_size
        self.mask_documents = mask_documents
        self.seed = seed
        self.num_workers = num_workers
        self.prompts = prompts
        self.data_dir = Path(data_dir) if data_dir else cache_folder().parent / "tokens"
        self.end_of_document: int | None = None
        self.bytes_per_token: dict[str, float] = {}
        self.xz_bits_per_byte: dict[str, float] = {}
        self.unigram_bits_per_token: dict[str, float] = {}

    def prepare_data(self) -> None:
        """Write the token files unless they exist; ``predict`` requires at most the tokenizer."""
        if self._only_predicts:
            return
        corpus = self._corpus()
        folder = self._folder(corpus)
        if not folder.exists():
            prepare(
                folder,
                corpus,
                lambda: self._given_tokenizer or self._learned_tokenizer(corpus),
                on_wait=lambda: rank_zero_info(
                    f"waiting for another process that prepares {folder}"
                ),
            )

    def setup(self, stage: str | None = None) -> None:
        """Map the token files, or read the prompts for ``predict``."""
        if stage == "predict":
            self.predict_dataset = read_prompts(self.prompts)
        if self._only_predicts:
            tokenizer = self._given_tokenizer
            assert tokenizer is not None
            self.vocab_size, self.end_of_document = tokenizer.vocab_size, tokenizer.end_of_document
            return
        corpus = self._corpus()
        prepared = PreparedTokens.load(self._folder(corpus), corpus, self._given_tokenizer)
        parts = prepared.parts.items()
        self.vocab_size = prepared.vocab_size
        self.end_of_document = prepared.end_of_document
        self.bytes_per_token = {name: part.bytes_per_token for name, part in parts}
        self.unigram_bits_per_token = {name: part.unigram_bits_per_token for name, part in parts}
        self.xz_bits_per_byte = {
            name: part.xz_bits_per_byte for name, part in parts if part.xz_bits_per_byte is not None
        }
        self.train_dataset = self._windows(prepared, "train")
        self.val_dataset = self._windows(prepared, "val")
        if "test" in prepared.parts:
            self.test_dataset = self._windows(prepared, "test")

    def save_tokenizer(self, folder: str | Path) -> None:
        """Write the tokenizer so that ``AutoTokenizer`` of transformers loads it from ``folder``.

        Its end-of-sequence token is the end of a document. Call ``setup`` first if the tokenizer
        was learned from the corpus.
        """
        self.transformers_tokenizer.save_pretrained(folder)

    @cached_property
    def transformers_tokenizer(self) -> Any:
        """The tokenizer as one of transformers, whose end-of-sequence token ends a document.

        Call ``prepare_data`` first if the tokenizer was learned from the corpus.
        """
        tokenizer = self._given_tokenizer
        if tokenizer is None:
            stored = self._folder(self._corpus()) / "tokenizer.json"
            tokenizer = BytePairTokenizer(stored.read_text("utf-8"))
        return to_transformers(tokenizer)

    @property
    def _only_predicts(self) -> bool:
        """Whether no text is required: ``predict`` with a tokenizer that was not learned."""
        predicts = self.trainer is not None and self.trainer.state.fn == "predict"
        return predicts and self.tokenizer != "bpe"

    def train_dataloader(self) -> ResumableDataLoader:
        """Return a loader of the training windows, shuffled in each epoch."""
        return self._loader(self.train_dataset, shuffle=True)

    def val_dataloader(self) -> ResumableDataLoader:
        """Return a loader of the validation windows, in order."""
        return self._loader(self.val_dataset, shuffle=False)

    def test_dataloader(self) -> ResumableDataLoader:
        """Return a loader of the test windows, in order.

        Raises:
            ValueError: The corpus has no test part.
        """
        if not hasattr(self, "test_dataset"):
            raise ValueError(f"corpus={self.corpus!r} has no test part: add test.txt to it")
        return self._loader(self.test_dataset, shuffle=False)

    def predict_dataloader(self) -> DataLoader:
        """Return a loader of batches of one prompt, in order."""
        return DataLoader(self.predict_dataset, batch_size=1, collate_fn=list)

    def _corpus(self) -> Corpus:
        if isinstance(self.corpus, HubCorpus):
            return self.corpus
        return shakespeare() if self.corpus == "shakespeare" else text_files(Path(self.corpus))

    @cached_property
    def _given_tokenizer(self) -> Tokenizer | None:
        """The tokenizer; None if it is learned from the corpus."""
        if self.tokenizer == "bpe":
            return None
        return (
            ByteTokenizer() if self.tokenizer == "bytes" else HuggingFaceTokenizer(self.tokenizer)
        )

    def _learned_tokenizer(self, corpus: Corpus) -> BytePairTokenizer:
        assert self.vocab_size is not None
        texts = (text for part, text in corpus.documents() if part == "train")
        return BytePairTokenizer.learned_from(texts, self.vocab_size)

    def _folder(self, corpus: Corpus) -> Path:
        kind = {"bytes": "bytes", "bpe": f"bpe{self.vocab_size}"}.get(self.tokenizer)
        if kind is None:
            assert self._given_tokenizer is not None
            kind = f"{Path(self.tokenizer).name}-{sha256_of(self._given_tokenizer)[:8]}"
        return self.data_dir / f"{Path(corpus.name).name}-{kind}-{corpus.fingerprint[:12]}"

    def _windows(self, prepared: PreparedTokens, part: str) -> TokenWindows:
        file = prepared.path(part), self.context_length
        windows = (
            DocumentWindows(*file, prepared.end_of_document)
            if self.mask_documents
            else TokenWindows(*file)
        )
        if len(windows) < 1:
            raise ValueError(
                f"context_length={self.context_length}: {part} of corpus={self.corpus!r} has only "
                f"{len(windows.tokens)} tokens; reduce context_length or add text"
            )
        return windows

    def _loader(self, dataset: Dataset, shuffle: bool) -> ResumableDataLoader:
        return ResumableDataLoader.for_trainer(
            self.trainer,
            dataset,
            self.batch_size,
            shuffle=shuffle,
            seed=self.seed,
            num_workers=self.num_workers,
        )


def _hub_corpus(corpus: str | HubCorpus) -> str | HubCorpus:
    """Convert ``hub:NAME`` to a :class:`HubCorpus`; return other corpora unchanged.

    Raises:
        ValueError: The corpus does not exist.
    """
    if isinstance(corpus, HubCorpus) or corpus == "shakespeare" or Path(corpus).is_dir():
        return corpus
    if corpus.startswith("hub:"):
        return HubCorpus(corpus.removeprefix("hub:"))
    raise ValueError(
        f"corpus={corpus!r}: expected 'shakespeare', a folder with train.txt and val.txt, or "
        "'hub:NAME' with the name or folder of a Hugging Face dataset"
    )
