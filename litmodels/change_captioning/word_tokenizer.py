"""A word-level tokenizer that is learned from captions."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

_SPECIAL = ("<pad>", "<unknown>", "<end>", "<image>")


class WordTokenizer:
    """Maps lower-case words and punctuation marks to token ids; the ids 0 to 3 are special.

    It is for small networks that are trained from random weights; published weights require their
    own tokenizer.

    Args:
        words: The vocabulary without the special tokens, in the order of the ids.
    """

    pad_id, unknown_id, end_id, image_id = range(len(_SPECIAL))

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self._id_of = {word: number for number, word in enumerate(words, start=len(_SPECIAL))}

    @classmethod
    def learned(
        cls, texts: Iterable[str], vocab_size: int, known: Sequence[str] = ()
    ) -> "WordTokenizer":
        """Build a vocabulary of at most ``vocab_size`` tokens from the most frequent words.

        Args:
            texts: Texts that contain the words.
            vocab_size: Maximum number of tokens, including the four special tokens.
            known: Words that come first and keep their ids.
        """
        counts = Counter(word for text in texts for word in _split(text))
        new = sorted(counts.keys() - set(known), key=lambda word: (-counts[word], word))
        return cls([*known, *new][: vocab_size - len(_SPECIAL)])

    def encode(self, text: str) -> list[int]:
        """Return the token ids of ``text``."""
        return [self._id_of.get(word, self.unknown_id) for word in _split(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the words of ``ids`` up to the first end token, without special tokens.

        Words are separated by spaces, without a space before a final full stop.
        """
        found = []
        for number in ids:
            if number == self.end_id:
                break
            if len(_SPECIAL) <= number < len(_SPECIAL) + len(self.words):
                found.append(self.words[number - len(_SPECIAL)])
        text = " ".join(found)
        return f"{text[:-2]}." if text.endswith(" .") else text


def _split(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text.lower())
