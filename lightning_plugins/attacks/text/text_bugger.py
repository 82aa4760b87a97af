"""TextBugger, the part that changes characters."""

import random
from dataclasses import dataclass

from lightning_plugins.attacks.text.characters import deletions, insertions, look_alikes, swaps
from lightning_plugins.attacks.text.word_attack import Questions, Search, WordAttack, by_importance
from lightning_plugins.attacks.text.words import Words


@dataclass(frozen=True)
class TextBugger(WordAttack):
    """A space in a word, a missing character, a swap inside or a look-alike; one of each a word.

    Words are ranked by the score without them. The paper's fifth change, a neighbour in a space of
    word vectors, and the bound on a sentence encoder's similarity are left out: both need models.

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
    """One random change of each kind, without the word itself."""
    made = [
        *insertions(word, randomness, inner=True, letters=" "),
        *deletions(word, randomness, inner=True),
        *swaps(word, randomness, inner=True),
        *look_alikes(word, randomness),
    ]
    return [other for other in dict.fromkeys(made) if other != word]
