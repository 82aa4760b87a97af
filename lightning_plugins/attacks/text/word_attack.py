"""The base class of attacks that replace words, and the greedy searches that they share."""

import math
import random
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Literal

from lightning_plugins.attacks.text.constraints import Constraint
from lightning_plugins.attacks.text.words import STOP_WORDS, Words

# A search yields texts and receives their scores, so that many searches can share one batch.
Search = Generator[list[str], Sequence[float], Words]
Propose = Callable[[Words, int], list[str]]
UNKNOWN = "[UNK]"


@dataclass(frozen=True)
class WordAttack:
    """Base class of attacks on a text's words.

    Args:
        max_queries: The largest number of texts that are scored for one attacked text, including
            the clean text; at least 1. None means no limit.
        max_word_share: The share of a text's words that may be changed, in [0, 1]; rounded down,
            but at least one word unless it is 0.
        constraints: What a replacement must meet, such as :class:`SentenceSimilarity`. Candidates
            that do not are not scored, so they are no queries.

    Raises:
        ValueError: An argument is outside its range.
    """

    max_queries: int | None = None
    max_word_share: float = 1.0
    constraints: tuple[Constraint, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        if self.max_queries is not None and self.max_queries < 1:
            raise ValueError(f"max_queries={self.max_queries}: expected at least 1, or None")
        if not 0 <= self.max_word_share <= 1:
            raise ValueError(f"max_word_share={self.max_word_share}: expected a share in [0, 1]")

    def max_words(self, words: Words) -> int:
        """Return the number of words of a text that may be changed."""
        return max(int(self.max_word_share * len(words)), 1) if self.max_word_share else 0

    def search(
        self, words: Words, clean_score: float, questions: "Questions", randomness: random.Random
    ) -> Search:
        """Yield lists of texts, receive their scores, and return the adversarial text."""
        raise NotImplementedError


@dataclass
class Questions:
    """The queries of one search: its budget, and the meaning of the scores.

    Attributes:
        label: The class of the text: 0 human, 1 AI.
        threshold: The detector predicts AI if the score is above this value.
        max_queries: The largest number of scored texts, including the clean one; None means no
            limit.
        max_words: The largest number of changed words.
        constraints: What a replacement must meet.
        goal: The probability of the wrong class at which the search ends; None for the threshold.
        known: Scores of the texts asked so far, which are not asked again; None asks each time.
        asked: The number of texts scored so far.
    """

    label: int
    threshold: float
    max_queries: int | None
    max_words: int
    constraints: tuple[Constraint, ...] = ()
    goal: float | None = None
    known: dict[str, float] | None = None
    asked: int = field(default=0)

    def constrained(self, original: Words, propose: Propose) -> Propose:
        """Return ``propose`` without the candidates that do not meet the constraints."""

        def allowed(current: Words, place: int) -> list[str]:
            found = propose(current, place)
            for constraint in self.constraints:
                found = constraint.allowed(original, current, place, found)
            return found

        return allowed if self.constraints else propose

    def wrongness(self, score: float) -> float:
        """Return the probability of the wrong class."""
        return 1 - score if self.label else score

    def misleads(self, score: float) -> bool:
        """Return whether the detector predicts the wrong class."""
        return (score > self.threshold) != bool(self.label)

    def reaches_goal(self, score: float) -> bool:
        """Return whether the search has what it looks for."""
        return self.misleads(score) and (self.goal is None or self.wrongness(score) >= self.goal)

    @property
    def exhausted(self) -> bool:
        """Whether the budget of queries is used up."""
        return self.max_queries is not None and self.asked >= self.max_queries

    def ask(self, texts: list[str]) -> Generator[list[str], Sequence[float], list[float]]:
        """Return the scores of the first texts, as many as the budget allows."""
        if self.known is None:
            new = self._affordable(texts)
            return list((yield new)) if new else []
        if new := self._affordable([x for x in dict.fromkeys(texts) if x not in self.known]):
            self.known.update(zip(new, (yield new), strict=True))
        return [self.known[x] for x in takewhile(self.known.__contains__, texts)]

    def _affordable(self, texts: list[str]) -> list[str]:
        if self.max_queries is not None:
            texts = texts[: max(self.max_queries - self.asked, 0)]
        self.asked += len(texts)
        return texts


def by_importance(
    words: Words,
    clean_score: float,
    propose: Propose,
    questions: Questions,
    ranking: Literal["unknown", "delete", "saliency"],
) -> Search:
    """Change words in the order of their importance; keep the best change of each if it helps.

    The importance of a word is the probability of the wrong class without the word. ``unknown``
    replaces the word by ``[UNK]``, ``delete`` by nothing. ``saliency`` multiplies the softmax of
    the importance by ``unknown`` with the largest gain from a change of this word alone (Ren et
    al., PWWS, ACL 2019).

    Source: Gao et al., DeepWordBug, arXiv 1801.04354; the search is TextAttack's
    ``GreedyWordSwapWIR``.
    """
    propose = questions.constrained(words, propose)
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
            if questions.reaches_goal(scores[best]):
                break
    return current


def over_all_words(words: Words, propose: Propose, questions: Questions) -> Search:
    """In each step, try every change of every word and keep the best, even if it does not help.

    Source: TextAttack's ``GreedySearch``.
    """
    propose = questions.constrained(words, propose)
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
        if questions.reaches_goal(scores[best]):
            break
    return current


def changeable(words: Words) -> list[int]:
    """Return the positions of all words that are not stop words."""
    return [i for i, word in enumerate(words.words) if word.lower() not in STOP_WORDS]


def _ranked(
    words: Words,
    wrongness: float,
    propose: Propose,
    questions: Questions,
    ranking: str,
) -> Generator[list[str], Sequence[float], list[int]]:
    places = changeable(words)
    replacement = "" if ranking == "delete" else UNKNOWN
    scores = yield from questions.ask([words.replaced(i, replacement).text for i in places])
    # If the budget ends during the ranking, only the scored words are ranked.
    importance = [questions.wrongness(score) for score in scores]
    places = places[: len(scores)]
    if ranking == "saliency" and importance:
        highest = max(importance)
        weights = [math.exp(x - highest) for x in importance]
        candidates = [[words.replaced(i, w).text for w in propose(words, i)] for i in places]
        scores = yield from questions.ask([text for texts in candidates for text in texts])
        remaining = iter(scores)
        total = sum(weights)
        importance = []
        for weight, texts in zip(weights, candidates, strict=True):
            # Not strict: texts beyond the budget have no score.
            pairs = zip(texts, remaining, strict=False)
            gains = [questions.wrongness(score) - wrongness for _, score in pairs]
            importance.append(weight / total * max(gains, default=0.0))
    return [place for _, place in sorted(zip((-x for x in importance), places, strict=True))]
