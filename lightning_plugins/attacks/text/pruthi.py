"""Pruthi: a few typing errors, the best that there are."""

import random
from dataclasses import dataclass

from lightning_plugins.attacks.text.characters import deletions, insertions, keyboard_slips, swaps
from lightning_plugins.attacks.text.word_attack import Questions, Search, WordAttack, over_all_words
from lightning_plugins.attacks.text.words import Words


@dataclass(frozen=True)
class Pruthi(WordAttack):
    """Every swap, deletion, insertion and slip of a key inside of words, over the whole text.

    First and last characters, words of fewer than four characters and stop words stay. Each step
    asks all changes of all words, so that a word costs some dozens of queries: set ``max_queries``.

    Source: Pruthi, Dhingra and Lipton, arXiv 1905.11268; TextAttack's recipe ``Pruthi2019``.

    Args:
        max_queries: see :class:`WordAttack`, as the next.
        max_word_share: likewise.
        max_typos: words that may be changed, at least 1; None is a twentieth of the words, between
            1 and 10, as in the evaluation of arXiv 2406.01179 (there of the mean text).
    """

    max_typos: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_typos is not None and self.max_typos < 1:
            raise ValueError(f"max_typos={self.max_typos}: expected at least 1, or None")

    def max_words(self, words: Words) -> int:
        """Words of a text that may be changed."""
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
    """Every typing error inside of a word of four characters or more."""
    if len(word) < 4:
        return []
    made = [
        *swaps(word, inner=True),
        *deletions(word, inner=True),
        *insertions(word, randomness, inner=True, everywhere=True),
        *keyboard_slips(word, inner=True),
    ]
    return [other for other in dict.fromkeys(made) if other != word]
