"""Pruthi: searches all typing errors for the most effective ones."""

import random
from dataclasses import dataclass

from lightning_plugins.attacks.text.characters import deletions, insertions, keyboard_slips, swaps
from lightning_plugins.attacks.text.word_attack import Questions, Search, WordAttack, over_all_words
from lightning_plugins.attacks.text.words import Words


@dataclass(frozen=True)
class Pruthi(WordAttack):
    """Tries every swap, deletion, insertion and keyboard slip inside all words of the text.

    First and last characters, words of fewer than four characters and stop words are not changed.
    Each step scores all changes of all words, which costs dozens of queries per word: set
    ``max_queries``.

    Source: Pruthi, Dhingra and Lipton, arXiv 1905.11268; TextAttack's recipe ``Pruthi2019``.

    Args:
        max_queries: See :class:`WordAttack`.
        max_word_share: See :class:`WordAttack`.
        max_typos: The number of words that may be changed, at least 1. None means a twentieth of
            the text's words, between 1 and 10, similar to the evaluation of arXiv 2406.01179, which
            uses a twentieth of the mean text's words.
    """

    max_typos: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_typos is not None and self.max_typos < 1:
            raise ValueError(f"max_typos={self.max_typos}: expected at least 1, or None")

    def max_words(self, words: Words) -> int:
        """Return the number of words of a text that may be changed."""
        typos = self.max_typos or min(max(len(words) // 20, 1), 10)
        return min(typos, super().max_words(words))

    def search(
        self, words: Words, clean_score: float, questions: Questions, randomness: random.Random
    ) -> Search:
        """See :class:`WordAttack`."""
        return over_all_words(
            words, lambda current, place: candidates(words.words[place], randomness), questions
        )


def candidates(word: str, randomness: random.Random) -> list[str]:
    """Return every typing error inside a word of at least four characters."""
    if len(word) < 4:
        return []
    made = [
        *swaps(word, inner=True),
        *deletions(word, inner=True),
        *insertions(word, randomness, inner=True, everywhere=True),
        *keyboard_slips(word, inner=True),
    ]
    return [other for other in dict.fromkeys(made) if other != word]
