"""Windows of a corpus's tokens, for language models."""

from functools import cached_property
from pathlib import Path

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import Dataset

from lightning_plugins.assets.cache import cache_folder
from lightning_plugins.datamodules.resumable import ResumableDataLoader
from lightning_plugins.datamodules.tokens.corpus import Corpus, HubCorpus, shakespeare, text_files
from lightning_plugins.datamodules.tokens.preparation import PreparedTokens, prepare
from lightning_plugins.datamodules.tokens.token_file import DocumentWindows, TokenWindows
from lightning_plugins.datamodules.tokens.tokenizers import (
    BytePairTokenizer,
    ByteTokenizer,
    HuggingFaceTokenizer,
    Tokenizer,
    sha256_of,
)


class TokenDataModule(LightningDataModule):
    """Packed tokens of a corpus in windows of ``context_length + 1``, each batch int64.

    A batch has the shape ``(batch_size, context_length + 1)``: the first ``context_length`` tokens
    are inputs, the last ones targets. Windows follow each other with one token in common and may
    span the end of a document, which is a token of its own. Training visits all windows of the
    training part in an order that is a function of (seed, epoch, rank) alone, so that methods can
    be compared on the same batches; the other parts come in order.

    The tokens are prepared once, whole or not at all, into a folder named by corpus and tokenizer.
    A preparation that was killed continues where it was. Byte pairs are encoded on all cores that
    the process may use; ``RAYON_NUM_THREADS`` sets another number of threads.

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
            ``train`` and ``val`` (``train.txt`` or ``train/*.txt``); ``hub:NAME``, a data set of
            the Hugging Face hub or a folder of its formats, such as ``hub:openwebtext``; or a
            :class:`HubCorpus`, which says more about it.
        tokenizer: ``bytes``; ``bpe``, byte pairs learned from the training part; or the name or
            folder of a tokenizer of transformers.
        vocab_size: of ``bpe``; the others bring their own.
        context_length: tokens a model sees.
        batch_size: windows a batch on each rank.
        mask_documents: keep the documents in a window apart: batches are then dictionaries of
            ``input_ids``, ``position_ids`` that start again with each document, by which the
            attention of transformers tells documents apart, and ``labels`` without each document's
            first token.
        seed: of the order.
        num_workers: processes that fetch batches ahead.
        data_dir: where prepared tokens are kept; None is the user's cache.

    Attributes:
        vocab_size: of the tokenizer; of one of transformers None until ``setup``.
        bytes_per_token: part -> bytes of UTF-8 a token, by which bits a byte are counted.
        xz_bits_per_byte: part -> what ``xz -9e`` makes of its text (at most the first 16 MiB), for
            ``val`` and ``test``.
        unigram_bits_per_token: part -> entropy of its tokens' frequencies.

    Raises:
        ValueError: an argument outside its range; a corpus without text, or with fewer tokens in a
            part than one window has; prepared tokens that are damaged or of something else.
        FileNotFoundError: the corpus is not there; the message says how to get it.
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
    ) -> None:
        super().__init__()
        if not tokenizer:
            raise ValueError("tokenizer='': expected 'bytes', 'bpe', or one of transformers")
        if tokenizer == "bpe" and vocab_size < 257:
            raise ValueError(
                f"vocab_size={vocab_size}: expected at least 257, the bytes and an end"
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
        self.data_dir = Path(data_dir) if data_dir else cache_folder().parent / "tokens"
        self.bytes_per_token: dict[str, float] = {}
        self.xz_bits_per_byte: dict[str, float] = {}
        self.unigram_bits_per_token: dict[str, float] = {}

    def prepare_data(self) -> None:
        """Write the token files, if they are not there yet."""
        corpus = self._corpus()
        folder = self._folder(corpus)
        if not folder.exists():
            prepare(
                folder,
                corpus,
                lambda: self._given_tokenizer or self._learned_tokenizer(corpus),
                on_wait=lambda: rank_zero_info(f"another process prepares {folder}: waiting"),
            )

    def setup(self, stage: str | None = None) -> None:
        """Map the token files."""
        corpus = self._corpus()
        prepared = PreparedTokens.load(self._folder(corpus), corpus, self._given_tokenizer)
        parts = prepared.parts.items()
        self.vocab_size = prepared.vocab_size
        self.bytes_per_token = {name: part.bytes_per_token for name, part in parts}
        self.unigram_bits_per_token = {name: part.unigram_bits_per_token for name, part in parts}
        self.xz_bits_per_byte = {
            name: part.xz_bits_per_byte for name, part in parts if part.xz_bits_per_byte is not None
        }
        self.train_dataset = self._windows(prepared, "train")
        self.val_dataset = self._windows(prepared, "val")
        if "test" in prepared.parts:
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
        if isinstance(self.corpus, HubCorpus):
            return self.corpus
        return shakespeare() if self.corpus == "shakespeare" else text_files(Path(self.corpus))

    @cached_property
    def _given_tokenizer(self) -> Tokenizer | None:
        """The tokenizer, unless it is learned from the corpus."""
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
                f"{len(windows.tokens)} tokens; reduce it or add text"
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
    """``hub:NAME`` as what it is short for; another name must be one that is there.

    Raises:
        ValueError: it is not.
    """
    if isinstance(corpus, HubCorpus) or corpus == "shakespeare" or Path(corpus).is_dir():
        return corpus
    if corpus.startswith("hub:"):
        return HubCorpus(corpus.removeprefix("hub:"))
    raise ValueError(
        f"corpus={corpus!r}: expected 'shakespeare', a folder with train.txt and val.txt, or "
        "'hub:NAME' with a data set's name on the Hugging Face hub or its folder"
    )
