"""DeepWordBug: misspells words in the order of their importance."""

import random
from dataclasses import dataclass

from lightning_plugins.attacks.text.characters import (
    deletions,
    edit_distance,
    insertions,
    substitutions,
    swaps,
)
from lightning_plugins.attacks.text.word_attack import Questions, Search, WordAttack, by_importance
from lightning_plugins.attacks.text.words import Words


@dataclass(frozen=True)
class DeepWordBug(WordAttack):
    """Tries up to four changes per word: a random swap, substitution, deletion and insertion.

    Words are ranked by the score with ``[UNK]`` in their place. Stop words are not changed, and no
    word is changed twice. The sum of the words' edit distances is at most ``max_edit_distance``, so
    the edit distance of the texts is too.

    Source: Gao et al., arXiv 1801.04354; TextAttack's recipe ``DeepWordBugGao2018``.

    Args:
        max_queries: See :class:`WordAttack`.
        max_word_share: See :class:`WordAttack`.
        max_edit_distance: The largest edit distance between the original and the changed text, at
            least 0.
    """

    max_edit_distance: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_edit_distance < 0:
            raise ValueError(f"max_edit_distance={self.max_edit_distance}: expected at least 0")

    def search(
        self, words: Words, clean_score: float, questions: Questions, randomness: random.Random
    ) -> Search:
        """See :class:`WordAttack`."""

        def propose(current: Words, place: int) -> list[str]:
            spent = sum(edit_distance(words.words[i], current.words[i]) for i in current.changed)
            word = words.words[place]
            return [
                made
                for made in candidates(word, randomness)
                if spent + edit_distance(word, made) <= self.max_edit_distance
            ]

        return by_importance(words, clean_score, propose, questions, "unknown")


def candidates(word: str, randomness: random.Random) -> list[str]:
    """Return one random misspelling of each kind, without the word itself."""
    made = [
        *swaps(word, randomness),
        *substitutions(word, randomness),
        *deletions(word, randomness),
        *insertions(word, randomness),
    ]
    return [other for other in dict.fromkeys(made) if other != word]
