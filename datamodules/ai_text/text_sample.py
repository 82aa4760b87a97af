"""A labelled text, and functions on its words."""

import hashlib
import re
from dataclasses import dataclass, replace
from itertools import islice

from lightning_plugins.attacks.text.scripts import word_pattern

_WORD = re.compile(r"\S+")
_NO_LETTER = re.compile(r"[\W_]+")
HUMAN = "human"


@dataclass(frozen=True)
class Sample:
    """A text and its label.

    Attributes:
        text: The text that a detector reads.
        label: 0 human, 1 AI.
        source: The human text or question from which it was derived; all samples of a source are
            in one part.
        pair: Name of its pair; samples of one pair are cut to the same number of words.
        domain: Kind of text, such as ``news``.
        generator: Model that wrote it, or ``human``.
    """

    text: str
    label: int
    source: str
    pair: str = ""
    domain: str = ""
    generator: str = HUMAN

    def with_text(self, text: str) -> "Sample":
        """Return this sample with another text."""
        return replace(self, text=text)


def num_words(text: str) -> int:
    """Return the number of words, separated by white space."""
    return len(text.split())


def words_between(text: str, first: int, last: int | None) -> str:
    """Return the words ``first`` to ``last - 1`` of ``text`` with the white space in between."""
    start = end = None
    for word in islice(_WORD.finditer(text), first, last):
        if start is None:
            start = word.start()
        end = word.end()
    return text[start:end] if start is not None else ""


def normalised(text: str) -> str:
    """Return the letters, marks and digits in lower case, with one space between words."""
    if text.isascii():
        return _NO_LETTER.sub(" ", text.casefold()).strip()
    return " ".join(word_pattern().findall(text.casefold().replace("_", " ")))


def hash_of(text: str) -> str:
    """Return a short hash of the normalised text."""
    return hashlib.blake2b(normalised(text).encode(), digest_size=8).hexdigest()


def opening_hash(text: str) -> str:
    """Return a short hash of the first ten words, which texts of one source often share."""
    return hash_of(words_between(text, 0, 10))
