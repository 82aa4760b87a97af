"""Prepares a folder of token files atomically, with shards that survive an interruption."""

import glob
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lightning_plugins.assets.lock import process_lock
from lightning_plugins.datamodules.tokens.corpus import Corpus
from lightning_plugins.datamodules.tokens.statistics import PartStatistics, StatisticsOfText
from lightning_plugins.datamodules.tokens.token_file import read_token_file, write_token_file
from lightning_plugins.datamodules.tokens.tokenizers import Tokenizer, sha256_of, sha256_of_json

_DESCRIPTION = "tokens.json"
_TOKENIZER = "tokenizer.json"
_ALWAYS_VERIFIED_BYTES = 2**28
CHUNK_CHARACTERS = 2**22


@dataclass(frozen=True)
class PreparedTokens:
    """Token files of one corpus with one tokenizer.

    Attributes:
        folder: Folder with ``PART.bin``, ``tokenizer.json`` and ``tokens.json``.
        vocab_size: Vocabulary size of the tokenizer.
        end_of_document: Token that ends each document.
        parts: Statistics of each part.
    """

    folder: Path
    vocab_size: int
    end_of_document: int
    parts: dict[str, PartStatistics]

    def path(self, part: str) -> Path:
        """Return the token file of a part."""
        return self.folder / f"{part}.bin"

    @classmethod
    def load(cls, folder: Path, corpus: Corpus, tokenizer: Tokenizer | None) -> "PreparedTokens":
        """Open a folder and check that it is complete and matches corpus and tokenizer.

        Token files of up to 256 MB are checked by their hash, larger ones by their size.

        Args:
            folder: Folder that ``prepare`` wrote.
            corpus: Expected corpus.
            tokenizer: Expected tokenizer; None if it was learned and is stored in the folder.

        Raises:
            ValueError: The folder is incomplete, corrupt, or has another corpus or tokenizer.
        """
        description_path = folder / _DESCRIPTION
        again = f"remove {folder} and prepare it again"
        try:
            stored: dict[str, Any] = json.loads(description_path.read_text("utf-8"))
            parts = {name: PartStatistics(**part) for name, part in stored["parts"].items()}
            found = cls(folder, int(stored["vocab_size"]), int(stored["end_of_document"]), parts)
            fingerprint, of_tokenizer = stored["corpus_fingerprint"], stored["tokenizer_sha256"]
            own = sha256_of_json((folder / _TOKENIZER).read_text("utf-8"), found.end_of_document)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{folder} is missing or incomplete ({type(error).__name__}: {error}): call "
                f"prepare_data() first, or {again}"
            ) from error
        if fingerprint != corpus.fingerprint:
            raise ValueError(
                f"{folder} was prepared from another version of corpus {corpus.name!r}: remove it, "
                "or set another data_dir"
            )
        asked = own if tokenizer is None else sha256_of(tokenizer)
        if not of_tokenizer == own == asked:
            raise ValueError(
                f"{folder} was prepared with another tokenizer than "
                f"{'its tokenizer.json' if of_tokenizer != own else 'the configured one'}: the "
                f"tokens would be decoded as other text; {again}, or set another data_dir"
            )
        for part, statistics in parts.items():
            path = found.path(part)
            try:
                small = path.stat().st_size <= _ALWAYS_VERIFIED_BYTES
                tokens = read_token_file(path, verify=small)
            except FileNotFoundError as error:
                raise ValueError(f"{path} is missing: {again}") from error
            if len(tokens) != statistics.num_tokens:
                raise ValueError(
                    f"{path} has {len(tokens)} tokens, but {_DESCRIPTION} specifies "
                    f"{statistics.num_tokens}: {again}"
                )
            if found.vocab_size - 1 > np.iinfo(tokens.dtype).max:
                raise ValueError(
                    f"{path} has tokens of {8 * tokens.itemsize} bits, too few for "
                    f"vocab_size={found.vocab_size}: {again}"
                )
        return found


def prepare(
    folder: Path,
    corpus: Corpus,
    make_tokenizer: Callable[[], Tokenizer],
    on_wait: Callable[[], None] = lambda: None,
    chunk_characters: int = CHUNK_CHARACTERS,
) -> None:
    """Write the token files of ``corpus`` to ``folder`` unless it exists.

    The corpus is read once, in chunks of whole documents. Each chunk is encoded to a shard in a
    hidden folder next to ``folder``. At the end the shards are joined, and the result is renamed to
    ``folder``. An interrupted preparation therefore leaves no ``folder``. The next preparation
    reads the text again but encodes only chunks without an intact shard.

    If several processes prepare the same folder, one works and the others wait. On a file system
    without locks all of them work, and the first result is kept. The preparation requires twice the
    disk space of the tokens.

    Args:
        folder: Folder of the result.
        corpus: Corpus to encode.
        make_tokenizer: Builds the tokenizer; called only if ``folder`` does not exist.
        on_wait: Called if another process is preparing the folder.
        chunk_characters: Minimum characters per shard.

    Raises:
        ValueError: There is no text for training or validation, or the tokenizer does not match.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with process_lock(folder.with_name(f".{folder.name}.lock"), on_wait) as locked:
        if folder.exists():
            return
        if locked:  # no other process is active, so these folders are from interrupted runs
            for left in folder.parent.glob(f".{glob.escape(folder.name)}.*.tmp"):
                shutil.rmtree(left, ignore_errors=True)
        shards = folder.with_name(f".{folder.name}.shards")
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            _write(temporary, shards, corpus, make_tokenizer(), chunk_characters)
            os.replace(temporary, folder)
        except OSError:
            if not folder.exists():  # otherwise another process without a lock finished first
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(shards, ignore_errors=True)


def _write(
    folder: Path, shards: Path, corpus: Corpus, tokenizer: Tokenizer, chunk_characters: int
) -> None:
    text = {part: StatisticsOfText(with_xz=part != "train") for part in ("train", "val", "test")}
    paths: dict[str, list[Path]] = {part: [] for part in text}
    store = ShardFolder(shards, tokenizer)
    # disable=None hides the bar if stderr is not a terminal.
    with tqdm(
        desc=f"tokens of {corpus.name}",
        total=corpus.num_bytes,
        unit="B",
        unit_scale=True,
        disable=None,
    ) as bar:
        for chunk in text_chunks(corpus, chunk_characters):
            text[chunk.part].add(chunk.contents)
            paths[chunk.part].append(store.path_of(chunk))
            bar.update(chunk.num_bytes)
    parts = {}
    for part, shards_of_part in paths.items():
        if not shards_of_part:
            if part == "test":
                continue
            raise ValueError(
                f"corpus {corpus.name!r} has no text for {part}: add text, or increase held_out if "
                f"{part} is held out of the training documents"
            )
        counts = np.zeros(tokenizer.vocab_size, np.int64)
        write_token_file(
            folder / f"{part}.bin", _counted(shards_of_part, counts), tokenizer.vocab_size
        )
        parts[part] = text[part].with_token_counts(counts)
    description = {
        "corpus": corpus.name,
        "corpus_fingerprint": corpus.fingerprint,
        "tokenizer_sha256": sha256_of(tokenizer),
        "vocab_size": tokenizer.vocab_size,
        "end_of_document": tokenizer.end_of_document,
        "parts": {part: asdict(statistics) for part, statistics in parts.items()},
    }
    (folder / _TOKENIZER).write_text(tokenizer.to_json(), "utf-8")
    (folder / _DESCRIPTION).write_text(json.dumps(description, indent=1), "utf-8")


def _counted(shards: list[Path], counts: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the tokens of each shard and add their frequencies to ``counts``."""
    for path in shards:
        tokens = read_token_file(path)
        counts += np.bincount(tokens, minlength=len(counts))
        yield tokens


@dataclass(frozen=True)
class TextChunk:
    """Consecutive documents of one part, in UTF-8 and as text."""

    part: str
    texts: list[str]
    contents: list[bytes]

    @property
    def num_bytes(self) -> int:
        """Bytes of all documents."""
        return sum(len(content) for content in self.contents)


def text_chunks(corpus: Corpus, chunk_characters: int) -> Iterator[TextChunk]:
    """Yield chunks of whole documents with at least ``chunk_characters``, except the last ones.

    Empty documents are skipped. A byte order mark at the start of a document is not text.
    """
    waiting: dict[str, list[str]] = {}
    characters: dict[str, int] = {}
    for part, document in corpus.documents():
        text = document.removeprefix("\ufeff")
        if not text:
            continue
        waiting.setdefault(part, []).append(text)
        characters[part] = characters.get(part, 0) + len(text)
        if characters[part] >= chunk_characters:
            yield _chunk(part, waiting.pop(part))
            characters[part] = 0
    for part, texts in waiting.items():
        yield _chunk(part, texts)


def _chunk(part: str, texts: list[str]) -> TextChunk:
    return TextChunk(part, texts, [text.encode() for text in texts])


class ShardFolder:
    """A folder of token files, named by the hash of a chunk's text and the tokenizer.

    Intact shards are reused.

    Args:
        folder: Folder of the shards; created if it does not exist.
        tokenizer: Encodes chunks without a shard.
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._tokenizer = tokenizer
        self._salt = sha256_of(tokenizer).encode()

    def path_of(self, chunk: TextChunk) -> Path:
        """Return the shard of a chunk, and encode it unless it exists."""
        digest = hashlib.sha256(self._salt)
        for content in chunk.contents:
            digest.update(f"{len(content)}\0".encode() + content)
        path = self._folder / f"{digest.hexdigest()}.bin"
        if not _is_intact(path):
            write_token_file(
                path, [self._tokenizer.encode(chunk.texts)], self._tokenizer.vocab_size
            )
        return path


def _is_intact(path: Path) -> bool:
    try:
        read_token_file(path, verify=True)
    except (OSError, ValueError):
        return False
    return True
