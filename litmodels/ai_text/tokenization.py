"""Tokenization of texts into windows, and masking of words."""

import random
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lightning_plugins.attacks.text.scripts import word_pattern


@dataclass(frozen=True)
class Window:
    """A part of a text that fits into one forward pass of an encoder.

    Attributes:
        text: Index of its text in the tokenized sequence of texts.
        ids: Token ids, including special tokens.
        start: Index of its first character in the text.
        end: Index after its last character in the text.
    """

    text: int
    ids: tuple[int, ...]
    start: int
    end: int


class TextTokenizer(Protocol):
    """Interface of a tokenizer that splits texts into windows."""

    pad_id: int
    mask_token: str

    def windows(self, texts: Sequence[str], max_length: int) -> list[Window]:
        """Split texts into windows of up to ``max_length`` tokens that do not overlap.

        Each text has at least one window. The windows are in the order of the texts and of their
        characters.
        """
        ...


class PretrainedTokenizer:
    """The tokenizer of a pretrained encoder.

    Args:
        name: Name on the Hugging Face hub, or a folder.

    Raises:
        ValueError: The tokenizer is a slow one, which does not return character offsets.
    """

    def __init__(self, name: str) -> None:
        from transformers import AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        if not self._tokenizer.is_fast:
            raise ValueError(
                f"tokenizer={name!r}: expected a fast tokenizer, which returns character offsets"
            )
        self.pad_id = self._tokenizer.pad_token_id
        self.mask_token = self._tokenizer.mask_token

    def windows(self, texts: Sequence[str], max_length: int) -> list[Window]:
        """See :class:`TextTokenizer`."""
        found = self._tokenizer(
            list(texts),
            max_length=max_length,
            truncation=True,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        columns = found["overflow_to_sample_mapping"], found["input_ids"], found["offset_mapping"]
        return [
            # Special tokens have the offsets (0, 0).
            Window(text, tuple(ids), min((a for a, b in spans if b), default=0), _end(spans))
            for text, ids, spans in zip(*columns, strict=True)
        ]


class HashedWords:
    """A tokenizer without a vocabulary, for encoders that are trained from scratch.

    Each word or punctuation mark becomes one token, whose id is its hash. A changed letter gives
    another token.

    Args:
        vocab_size: Number of token ids, at least 3: padding, the start token, and the hashes.
    """

    pad_id = 0
    mask_token = "[MASK]"
    _START = 1

    def __init__(self, vocab_size: int) -> None:
        if vocab_size < 3:
            raise ValueError(f"vocab_size={vocab_size}: expected at least 3")
        self._token = re.compile(rf"\[MASK\]|_|{word_pattern().pattern}|[^\w\s]")
        self._num_hashes = vocab_size - 2

    def windows(self, texts: Sequence[str], max_length: int) -> list[Window]:
        """See :class:`TextTokenizer`."""
        step = max_length - 1
        windows = []
        for place, text in enumerate(texts):
            words = list(self._token.finditer(text))
            for first in range(0, max(len(words), 1), step):
                part = words[first : first + step]
                ids = (self._START, *(self._hash(word[0]) for word in part))
                span = (part[0].start(), part[-1].end()) if part else (0, 0)
                windows.append(Window(place, ids, *span))
        return windows

    def _hash(self, word: str) -> int:
        return 2 + zlib.crc32(word.encode()) % self._num_hashes


def first_windows(windows: Sequence[Window]) -> list[Window]:
    """Return the first window of each text."""
    return list({window.text: window for window in reversed(windows)}.values())[::-1]


def _end(spans: Sequence[tuple[int, int]]) -> int:
    return max(end for _, end in spans)


def mask_words(text: str, share: float, mask_token: str, randomness: random.Random) -> str:
    """Replace ``round(share * words)`` random words of ``text``; white space is preserved."""
    words = list(re.finditer(r"\S+", text))
    masked = randomness.sample(words, round(share * len(words)))
    for word in sorted(masked, key=lambda m: m.start(), reverse=True):
        text = text[: word.start()] + mask_token + text[word.end() :]
    return text
