"""TextBugger, restricted to its changes of characters."""

import random
from dataclasses import dataclass

from lightning_plugins.attacks.text.characters import deletions, insertions, look_alikes, swaps
from lightning_plugins.attacks.text.word_attack import Questions, Search, WordAttack, by_importance
from lightning_plugins.attacks.text.words import Words


@dataclass(frozen=True)
class TextBugger(WordAttack):
    """Tries four changes per word: a space inside, a deletion, a swap inside and a look-alike.

    Words are ranked by the score without them. The paper's fifth change, a nearest neighbour in an
    embedding space, and its bound on the similarity of a sentence encoder are omitted, because both
    need models.

    Source: Li et al., arXiv 1812.05271; TextAttack's recipe ``TextBuggerLi2018``.
    """

    def search(
        self, words: Words, clean_score: float, questions: Questions, randomness: random.Random
    ) -> Search:
        """See :class:`WordAttack`."""
        return by_importance(
            words,
            clean_score,
            lambda current, place: candidates(words.words[place], randomness),
            questions,
            "delete",
        )


def candidates(word: str, randomness: random.Random) -> list[str]:
    """Return one random change of each kind, without the word itself."""
    made = [
        *insertions(word, randomness, inner=True, letters=" "),
        *deletions(word, randomness, inner=True),
        *swaps(word, randomness, inner=True),
        *look_alikes(word, randomness),
    ]
    return [other for other in dict.fromkeys(made) if other != word]
