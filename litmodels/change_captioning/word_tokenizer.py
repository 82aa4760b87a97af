"""A tokenizer of whole words, learned from captions."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

_SPECIAL = ("<pad>", "<unknown>", "<end>", "<image>")


class WordTokenizer:
    """Numbers for lower-case words and punctuation marks; 0 to 3 are special.

    For small networks that are trained from random weights; with published weights goes their own
    tokenizer.

    Args:
        words: the vocabulary, without the special tokens, in the order of its numbers.
    """

    pad_id, unknown_id, end_id, image_id = range(len(_SPECIAL))

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self._id_of = {word: number for number, word in enumerate(words, start=len(_SPECIAL))}

    @classmethod
    def learned(
        cls, texts: Iterable[str], vocab_size: int, known: Sequence[str] = ()
    ) -> "WordTokenizer":
        """With ``known`` words, which keep their numbers, and then the most frequent of ``texts``.

        At most ``vocab_size`` tokens in all.
        """
        counts = Counter(word for text in texts for word in _split(text))
        new = sorted(counts.keys() - set(known), key=lambda word: (-counts[word], word))
        return cls([*known, *new][: vocab_size - len(_SPECIAL)])

    def encode(self, text: str) -> list[int]:
        """Numbers of the words of ``text``."""
        return [self._id_of.get(word, self.unknown_id) for word in _split(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """The words of ``ids`` up to the first end, without special tokens, a blank between two.

        Before a last full stop there is none.
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
