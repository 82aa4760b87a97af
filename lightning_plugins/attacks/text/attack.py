"""What all attacks on texts share."""

import random
from dataclasses import dataclass

from lightning_plugins.attacks.text.search import Questions, Search
from lightning_plugins.attacks.text.words import Words


@dataclass(frozen=True)
class WordAttack:
    """An attack, as plain data.

    Args:
        max_queries: texts that may be scored for each text attacked, the clean one included, at
            least 1; None is no limit.
        max_word_share: share of a text's words that may be changed, in [0, 1], rounded down but at
            least one word.

    Raises:
        ValueError: an argument outside its range.
    """

    max_queries: int | None = None
    max_word_share: float = 1.0

    def __post_init__(self) -> None:
        if self.max_queries is not None and self.max_queries < 1:
            raise ValueError(f"max_queries={self.max_queries}: expected at least 1, or None")
        if not 0 <= self.max_word_share <= 1:
            raise ValueError(f"max_word_share={self.max_word_share}: expected a share in [0, 1]")

    def max_words(self, words: Words) -> int:
        """Words of a text that may be changed."""
        return max(int(self.max_word_share * len(words)), 1) if self.max_word_share else 0

    def search(
        self, words: Words, clean_score: float, questions: Questions, randomness: random.Random
    ) -> Search:
        """Yield lists of texts, be sent their scores, and return the text that was found."""
        raise NotImplementedError
