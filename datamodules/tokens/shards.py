"""Shards of tokens that are named by the text they came from, so that none is encoded twice."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_plugins.datamodules.tokens.corpus import Corpus
from lightning_plugins.datamodules.tokens.token_file import read_token_file, write_token_file
from lightning_plugins.datamodules.tokens.tokenizer import Tokenizer, sha256_of


@dataclass(frozen=True)
class TextChunk:
    """Consecutive documents of one part, in UTF-8 and as text."""

    part: str
    texts: list[str]
    contents: list[bytes]

    @property
    def num_bytes(self) -> int:
        """Of all documents."""
        return sum(len(content) for content in self.contents)


def text_chunks(corpus: Corpus, chunk_characters: int) -> Iterator[TextChunk]:
    """The corpus in chunks of whole documents, of at least so many characters but for the last.

    Empty documents are left out.
    """
    waiting: dict[str, list[str]] = {}
    characters: dict[str, int] = {}
    for part, text in corpus.documents():
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
    """Token files, each named by the hash of a chunk's text and of the tokenizer.

    A shard that is there and intact is not encoded again, whoever wrote it.

    Args:
        folder: made if it is not there.
        tokenizer: encodes what is not there yet.
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._tokenizer = tokenizer
        self._salt = sha256_of(tokenizer).encode()

    def path_of(self, chunk: TextChunk) -> Path:
        """The shard of the chunk, which is encoded unless it is there."""
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
