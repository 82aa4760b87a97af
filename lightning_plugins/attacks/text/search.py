"""Greedy searches for the words whose change misleads a detector."""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from lightning_plugins.attacks.text.stop_words import STOP_WORDS
from lightning_plugins.attacks.text.words import Words

# A search yields texts and is sent their scores; so many searches can share one batch.
Search = Generator[list[str], Sequence[float], Words]
Propose = Callable[[Words, int], list[str]]
UNKNOWN = "[UNK]"


@dataclass
class Questions:
    """What a search may ask, and what it hears: how wrong the detector is.

    Attributes:
        label: of the text: 0 human, 1 AI.
        threshold: the detector says AI where the score is above it.
        max_queries: texts that may be scored, the clean one included; None is no limit.
        max_words: words that may be changed.
        asked: texts scored so far.
    """

    label: int
    threshold: float
    max_queries: int | None
    max_words: int
    asked: int = field(default=0)

    def wrongness(self, score: float) -> float:
        """Probability of the class that the text is not of."""
        return 1 - score if self.label else score

    def misleads(self, score: float) -> bool:
        """Whether the detector takes the text for the other class."""
        return (score > self.threshold) != bool(self.label)

    @property
    def exhausted(self) -> bool:
        """Whether nothing more may be asked."""
        return self.max_queries is not None and self.asked >= self.max_queries

    def ask(self, texts: list[str]) -> Generator[list[str], Sequence[float], list[float]]:
        """Scores of as many of ``texts`` as may still be asked."""
        if self.max_queries is not None:
            texts = texts[: max(self.max_queries - self.asked, 0)]
        if not texts:
            return []
        self.asked += len(texts)
        return list((yield texts))


def by_importance(
    words: Words,
    clean_score: float,
    propose: Propose,
    questions: Questions,
    ranking: Literal["unknown", "delete", "saliency"],
) -> Search:
    """Change words in the order of their importance; keep the best change of each if it helps.

    The importance of a word is how wrong the detector is without it: with ``unknown`` ``[UNK]``
    stands in its place, with ``delete`` nothing. ``saliency`` multiplies the softmax of the first
    with the most that a change of the word alone achieves (Ren et al., PWWS, ACL 2019).

    Source: Gao et al., DeepWordBug, arXiv 1801.04354; the search is TextAttack's
    ``GreedyWordSwapWIR``.
    """
    current, wrongness = words, questions.wrongness(clean_score)
    for place in (yield from _ranked(words, wrongness, propose, questions, ranking)):
        if len(current.changed) >= questions.max_words or questions.exhausted:
            break
        candidates = [current.replaced(place, word) for word in propose(current, place)]
        scores = yield from questions.ask([candidate.text for candidate in candidates])
        if not scores:
            continue
        best = max(range(len(scores)), key=lambda i: questions.wrongness(scores[i]))
        if questions.wrongness(scores[best]) > wrongness:
            current, wrongness = candidates[best], questions.wrongness(scores[best])
            if questions.misleads(scores[best]):
                break
    return current


def over_all_words(words: Words, propose: Propose, questions: Questions) -> Search:
    """In each step ask every change of every word, and keep the best even if it is no better.

    Source: TextAttack's ``GreedySearch``.
    """
    current = words
    places = changeable(words)
    while len(current.changed) < questions.max_words and not questions.exhausted:
        candidates = [
            current.replaced(place, word)
            for place in places
            if place not in current.changed
            for word in propose(current, place)
        ]
        scores = yield from questions.ask([candidate.text for candidate in candidates])
        if not scores:
            break
        best = max(range(len(scores)), key=lambda i: questions.wrongness(scores[i]))
        current = candidates[best]
        if questions.misleads(scores[best]):
            break
    return current


def changeable(words: Words) -> list[int]:
    """Places of words that are no stop words."""
    return [i for i, word in enumerate(words.words) if word.lower() not in STOP_WORDS]


def _ranked(
    words: Words,
    wrongness: float,
    propose: Propose,
    questions: Questions,
    ranking: str,
) -> Generator[list[str], Sequence[float], list[int]]:
    places = changeable(words)
    stand_in = "" if ranking == "delete" else UNKNOWN
    scores = yield from questions.ask([words.replaced(i, stand_in).text for i in places])
    # Where the budget ends within the ranking, only words that were asked for are ranked.
    importance = [questions.wrongness(score) for score in scores]
    places = places[: len(scores)]
    if ranking == "saliency" and importance:
        highest = max(importance)
        weights = [math.exp(x - highest) for x in importance]
        candidates = [[words.replaced(i, w).text for w in propose(words, i)] for i in places]
        scores = yield from questions.ask([text for texts in candidates for text in texts])
        heard = iter(scores)
        total = sum(weights)
        importance = []
        for weight, texts in zip(weights, candidates, strict=True):
            # zip stops at the shorter: what the budget did not allow to ask is not heard.
            gains = [questions.wrongness(s) - wrongness for _, s in zip(texts, heard, strict=False)]
            importance.append(weight / total * max(gains, default=0.0))
    return [place for _, place in sorted(zip((-x for x in importance), places, strict=True))]
