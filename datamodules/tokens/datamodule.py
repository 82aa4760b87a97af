"""Windows of the tokens of a corpus for language models."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader, Dataset

from lightning_plugins.assets.cache import cache_folder
from lightning_plugins.checkpoints import CheckedLoading
from lightning_plugins.datamodules.resumable import ResumableDataLoader
from lightning_plugins.datamodules.tokens.corpus import Corpus, HubCorpus, shakespeare, text_files
from lightning_plugins.datamodules.tokens.mixture import (
    BinCorpus,
    CorpusShare,
    windows_per_epoch,
)
from lightning_plugins.datamodules.tokens.preparation import PreparedTokens, prepare
from lightning_plugins.datamodules.tokens.prompts import read_prompts
from lightning_plugins.datamodules.tokens.statistics import PartStatistics, pooled
from lightning_plugins.datamodules.tokens.tokenizers import (
    BytePairTokenizer,
    ByteTokenizer,
    HuggingFaceTokenizer,
    Tokenizer,
    sha256_of,
    to_transformers,
)
from lightning_plugins.datamodules.tokens.windows import MixedWindows, TokenWindows


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
            Hugging Face hub such as ``hub:openwebtext``, or ``hub:FOLDER``, a folder in one of its
            formats; a ``.jsonl`` or ``.parquet`` file; a :class:`HubCorpus` with further options;
            ``bin:FOLDER`` or a :class:`BinCorpus`, tokens of nanoGPT; or a list of
            :class:`CorpusShare`, a mixture. For a folder without text files, ``hub:`` and ``bin:``
            may be left out.
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

    train_dataset: Dataset
    val_dataset: Dataset
    test_dataset: Dataset

    def __init__(
        self,
        corpus: str | HubCorpus | BinCorpus | list[CorpusShare] = "shakespeare",
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
        shares = corpus if isinstance(corpus, list) else [CorpusShare(corpus)]
        self.shares = [replace(share, corpus=_corpus_of(share.corpus)) for share in shares]
        if len(self.shares) > 1 and tokenizer == "bpe":
            raise ValueError(
                "tokenizer='bpe' learns from one corpus: for a mixture, write it with "
                "save_tokenizer(FOLDER) and set tokenizer=FOLDER"
            )
        if not self.shares:
            raise ValueError("corpus=[]: expected at least one corpus")
        self.is_mixture = isinstance(corpus, list)
        self.corpus = self.shares if self.is_mixture else self.shares[0].corpus
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
        for share in self.shares:
            if not isinstance(share.corpus, BinCorpus):
                self._prepare(_texts_of(share.corpus))

    def _prepare(self, corpus: Corpus) -> None:
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
        opened = [self._opened(share.corpus) for share in self.shares]
        first, *others = opened
        for other in others:
            if (other.vocab_size, other.end_of_document) != first[1:3]:
                raise ValueError(
                    f"corpus: the corpora of a mixture have {first.vocab_size} and "
                    f"{other.vocab_size} tokens, and end documents with {first.end_of_document} "
                    f"and {other.end_of_document}: they need the same tokenizer"
                )
        self.vocab_size, self.end_of_document = first.vocab_size, first.end_of_document
        if self.mask_documents and self.end_of_document is None:
            raise ValueError("mask_documents=True needs end_of_document of the corpus")
        for part in ("train", "val", "test"):
            having = [one for one in opened if part in one.files]
            if not having:
                continue
            if all(part in one.statistics for one in having):
                for name, value in pooled([one.statistics[part] for one in having]).items():
                    getattr(self, name)[part] = value
            paths = [path for one in having for path in one.files[part]]
            setattr(self, f"{part}_dataset", self._windows(paths, part))
        if self.is_mixture:
            parts = [self._windows(one.files["train"], "train") for one in opened]
            sizes = windows_per_epoch(self.shares, [len(windows) for windows in parts])
            self.train_dataset = MixedWindows(parts, sizes, self.seed)

    def _opened(self, corpus: str | HubCorpus | BinCorpus) -> "_Opened":
        if isinstance(corpus, BinCorpus):
            vocab_size, end = corpus.vocab_size, corpus.end_of_document
            if vocab_size is None:
                tokenizer = self._given_tokenizer
                if tokenizer is None:
                    raise ValueError(
                        f"tokenizer='bpe' does not know the tokens of 'bin:{corpus.folder}': set "
                        "vocab_size and end_of_document of the corpus, or their tokenizer"
                    )
                vocab_size, end = tokenizer.vocab_size, tokenizer.end_of_document
            files = corpus.files()
            for paths in files.values():
                corpus.check(paths, vocab_size)
            return _Opened(files, vocab_size, end, {})
        texts = _texts_of(corpus)
        prepared = PreparedTokens.load(self._folder(texts), texts, self._given_tokenizer)
        files = {part: [prepared.path(part)] for part in prepared.parts}
        return _Opened(files, prepared.vocab_size, prepared.end_of_document, prepared.parts)

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
            corpus = self.shares[0].corpus
            assert not isinstance(corpus, BinCorpus)
            stored = self._folder(_texts_of(corpus)) / "tokenizer.json"
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
        prompts: Any = self.predict_dataset
        return DataLoader(prompts, batch_size=1, collate_fn=list)

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

    def _windows(self, paths: list[Path], part: str) -> TokenWindows:
        end = self.end_of_document if self.mask_documents else None
        windows = TokenWindows(paths, self.context_length, end)
        if len(windows) < 1:
            raise ValueError(
                f"context_length={self.context_length}: {part} of corpus={self.corpus!r} has only "
                f"{windows.num_tokens} tokens; reduce context_length or add text"
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


class _Opened(NamedTuple):
    """The token files of a corpus, and the statistics of its text if they are known."""

    files: Mapping[str, list[Path]]
    vocab_size: int
    end_of_document: int | None
    statistics: Mapping[str, PartStatistics]


def _texts_of(corpus: str | HubCorpus) -> Corpus:
    if isinstance(corpus, HubCorpus):
        return corpus
    return shakespeare() if corpus == "shakespeare" else text_files(Path(corpus))


def _corpus_of(corpus: str | HubCorpus | BinCorpus) -> str | HubCorpus | BinCorpus:
    """Convert ``hub:NAME``, ``bin:FOLDER``, files, and folders of them to a corpus.

    Raises:
        ValueError: The corpus does not exist.
    """
    if not isinstance(corpus, str) or corpus == "shakespeare":
        return corpus
    if Path(corpus).is_dir():
        return _corpus_of_folder(corpus)
    if corpus.startswith("hub:"):
        return HubCorpus(corpus.removeprefix("hub:"))
    if corpus.startswith("bin:"):
        return BinCorpus(corpus.removeprefix("bin:"))
    if Path(corpus).is_file() and set(Path(corpus).suffixes) & {".json", ".jsonl", ".parquet"}:
        return HubCorpus(corpus)
    raise ValueError(
        f"corpus={corpus!r}: expected 'shakespeare', a folder with train.txt and val.txt, a .jsonl "
        "or .parquet file, 'hub:NAME' with the name or folder of a Hugging Face dataset, or "
        "'bin:FOLDER' with token files"
    )


def _corpus_of_folder(folder: str) -> str | HubCorpus | BinCorpus:
    """Return a folder with text files unchanged, and the corpus of one with other files."""
    files = (path for pattern in ("*", "*/*") for path in Path(folder).glob(pattern))
    endings = {suffix.lower() for path in files for suffix in path.suffixes}
    if ".txt" in endings:
        return folder
    if endings & {".parquet", ".jsonl", ".json", ".arrow"}:
        return HubCorpus(folder)
    return BinCorpus(folder) if ".bin" in endings else folder
