"""Text to token numbers: plain bytes, or byte-level pairs learned from the training text."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

_CHUNK_CHARACTERS = 20_000


class Tokenizer(Protocol):
    """What the token files need of a tokenizer."""

    vocab_size: int

    @property
    def sha256(self) -> str:
        """Hash that tells it from every other tokenizer."""

    def encode(self, documents: Iterable[str]) -> Iterator[np.ndarray]:
        """Token numbers, document after document, each ended by ``end_of_document``."""

    def to_json(self) -> str:
        """All of it as JSON, to be kept beside its token files."""


class ByteTokenizer:
    """One token a byte of UTF-8; token 0, a byte that text does not have, ends a document."""

    vocab_size = 256
    sha256 = hashlib.sha256(b"bytes, 0 ends a document").hexdigest()

    def encode(self, documents: Iterable[str]) -> Iterator[np.ndarray]:
        """One array a document."""
        for document in documents:
            yield np.frombuffer(document.encode() + b"\0", np.uint8)

    def to_json(self) -> str:
        """Nothing is learned."""
        return '{"type": "bytes"}'


class BytePairTokenizer:
    """Byte-level byte-pair encoding (Sennrich et al., arXiv 1508.07909; bytes as in GPT-2).

    Args:
        json: of a ``tokenizers.Tokenizer`` whose token 0 ends a document.
    """

    def __init__(self, json: str) -> None:
        self._json = json
        self._tokenizer = _tokenizers().Tokenizer.from_str(json)
        self.vocab_size = self._tokenizer.get_vocab_size()

    @classmethod
    def learned_from(cls, documents: Sequence[str], vocab_size: int) -> "BytePairTokenizer":
        """Learn ``vocab_size`` tokens from the documents.

        Raises:
            ValueError: fewer tokens than the 256 bytes and the end of a document.
            ImportError: without ``tokenizers``.
        """
        if vocab_size < 257:
            raise ValueError(
                f"vocab_size={vocab_size}: expected at least 257, the bytes and an end"
            )
        library = _tokenizers()
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = library.decoders.ByteLevel()
        trainer = library.trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(documents, trainer, length=len(documents))
        return cls(tokenizer.to_str())

    @property
    def sha256(self) -> str:
        """Hash of its JSON."""
        return hashlib.sha256(self._json.encode()).hexdigest()

    def encode(self, documents: Iterable[str]) -> Iterator[np.ndarray]:
        """Several arrays a document: pieces that end with a line, encoded on all cores."""
        for document in documents:
            for encoding in self._tokenizer.encode_batch(list(_pieces(document))):
                yield np.asarray(encoding.ids, np.uint32)
            yield np.zeros(1, np.uint32)

    def to_json(self) -> str:
        """As ``tokenizers.Tokenizer.from_str`` reads it."""
        return self._json


def _pieces(document: str) -> Iterator[str]:
    # Encoding one string of many megabytes takes far longer than that of its pieces.
    start = 0
    while start < len(document):
        end = document.find("\n", start + _CHUNK_CHARACTERS) + 1 or len(document)
        yield document[start:end]
        start = end


def _tokenizers() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(
            'byte-pair encoding needs tokenizers: pip install "lightning-plugins[text]"'
        ) from error
    return tokenizers
