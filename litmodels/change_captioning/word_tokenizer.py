"""A word-level tokenizer that is learned from captions."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_warn

from lightning_plugins.litmodels.change_captioning.prompt import QUESTION

WORDS_FILE = "words.json"
_SPECIAL = ("<pad>", "<unknown>", "<end>", "<image>")


class WordTokenizer:
    """Maps lower-case words and punctuation marks to token ids; the ids 0 to 3 are special.

    It is for small networks that are trained from random weights; published weights require their
    own tokenizer.

    Args:
        words: The vocabulary without the special tokens, in the order of the ids.
    """

    pad_id, unknown_id, end_id, image_id = range(len(_SPECIAL))
    template, header, footer = QUESTION, "", ""
    marker_ids: frozenset[int] = frozenset()

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self._id_of = {word: number for number, word in enumerate(words, start=len(_SPECIAL))}

    @classmethod
    def learned(
        cls, texts: Iterable[str], vocab_size: int, known: Sequence[str] = ()
    ) -> "WordTokenizer":
        """Build a vocabulary of at most ``vocab_size`` tokens from the most frequent words.

        A warning gives the number of words that do not fit; they become the unknown token.

        Args:
            texts: Texts that contain the words.
            vocab_size: Maximum number of tokens, including the four special tokens.
            known: Words that come first and keep their ids.
        """
        counts = Counter(word for text in texts for word in _split(text))
        new = sorted(counts.keys() - set(known), key=lambda word: (-counts[word], word))
        words, places = [*known, *new], vocab_size - len(_SPECIAL)
        if len(words) > places:
            lost = sum(counts[word] for word in words[places:])
            rank_zero_warn(
                f"vocab_size={vocab_size}: {len(words) - places} of {len(words)} words, "
                f"{lost / counts.total():.2%} of the texts, become the unknown token; "
                f"vocab_size={len(words) + len(_SPECIAL)} has room for all of them"
            )
        return cls(words[:places])

    def encode(self, text: str) -> list[int]:
        """Return the token ids of ``text``."""
        return [self._id_of.get(word, self.unknown_id) for word in _split(text)]

    def save(self, folder: str | Path) -> None:
        """Write the words to a folder."""
        Path(folder, WORDS_FILE).write_text(json.dumps(self.words), encoding="utf-8")

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
