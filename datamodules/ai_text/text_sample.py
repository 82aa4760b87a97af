"""A text with what is known of who wrote it."""

import hashlib
import re
from dataclasses import dataclass, replace

_WORD = re.compile(r"\S+")
_NO_LETTER = re.compile(r"[\W_]+")
HUMAN = "human"


@dataclass(frozen=True)
class Sample:
    """A text and its label.

    Attributes:
        text: as a detector reads it.
        label: 0 human, 1 AI.
        source: what people wrote that it goes back to; the samples of a source stay together when
            parts are made.
        pair: samples of one pair are cut to the same number of words.
        domain: kind of text, such as ``news``.
        generator: model that wrote it, or ``human``.
    """

    text: str
    label: int
    source: str
    pair: str = ""
    domain: str = ""
    generator: str = HUMAN

    def with_text(self, text: str) -> "Sample":
        """The same with another text."""
        return replace(self, text=text)


def num_words(text: str) -> int:
    """Words that white space tells apart."""
    return len(text.split())


def words_between(text: str, first: int, last: int) -> str:
    """``text`` from word number ``first`` up to ``last``, its white space kept."""
    words = list(_WORD.finditer(text))[first:last]
    return text[words[0].start() : words[-1].end()] if words else ""


def normalised(text: str) -> str:
    """Letters and digits in lower case, one space between words: what makes texts the same."""
    return _NO_LETTER.sub(" ", text.casefold()).strip()


def hash_of(text: str) -> str:
    """A short name of a text up to its letters."""
    return hashlib.blake2b(normalised(text).encode(), digest_size=8).hexdigest()
