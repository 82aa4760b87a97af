"""Attacks on many texts at once, with one batch for the queries of all of them."""

import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from lightning_plugins.attacks.text.attack import WordAttack
from lightning_plugins.attacks.text.result import AttackResult, Status
from lightning_plugins.attacks.text.result_file import ResultFile
from lightning_plugins.attacks.text.search import Questions, Search
from lightning_plugins.attacks.text.words import Words

Victim = Callable[[list[str]], Iterable[float]]


def attack_texts(
    attack: WordAttack,
    victim: Victim,
    texts: Sequence[str],
    labels: Sequence[int],
    *,
    threshold: float = 0.5,
    seed: int = 0,
    at_once: int = 32,
    path: str | Path | None = None,
    victim_name: str = "",
) -> list[AttackResult]:
    """Attack each text that the detector is right on, in the order of ``texts``.

    The searches run side by side and are asked together, so that a network sees batches. Of a
    victim that answers alike to the same text the results do not depend on ``at_once``.

    Args:
        attack: with its budgets.
        victim: from texts to probabilities of AI, such as ``ZeroShotDetector.score``.
        texts: any strings.
        labels: 0 human, 1 AI.
        threshold: the detector says AI where the score is above it. Attack AI texts with the
            threshold at a false positive rate of 1 % to see what evades a cautious detector.
        seed: of the candidates; each text has a generator of its own.
        at_once: searches side by side, at least 1.
        path: of a file of results, one line of JSON each, that is continued where it exists.
        victim_name: kept in that file, so that results of one victim are not taken for another's.
            Nothing else in the file tells them apart: name the checkpoint here.

    Raises:
        ValueError: an argument outside its range, labels that are not 0 and 1, a victim that gives
            another number of scores, or a file of another run.
    """
    if len(texts) != len(labels):
        raise ValueError(f"labels has {len(labels)} entries: expected {len(texts)}, one a text")
    if wrong := set(labels) - {0, 1}:
        raise ValueError(f"labels has {sorted(wrong)}: expected 0 (human) and 1 (AI)")
    if at_once < 1:
        raise ValueError(f"at_once={at_once}: expected at least 1")
    key = f"{attack!r}, threshold={threshold!r}, seed={seed}"
    if victim_name:
        key += f", victim {victim_name}"
    file = ResultFile(Path(path), key, texts, labels) if path is not None else None
    results: dict[int, AttackResult] = file.read() if file else {}
    waiting = [place for place in range(len(texts)) if place not in results]
    running: dict[int, _Siege] = {}
    while waiting or running:
        while waiting and len(running) < at_once:
            place = waiting.pop(0)
            running[place] = _Siege(attack, texts[place], int(labels[place]), threshold, seed)
        asked = [text for siege in running.values() for text in siege.asks]
        scores = [float(score) for score in victim(asked)]
        if len(scores) != len(asked):
            raise ValueError(f"victim gave {len(scores)} scores for {len(asked)} texts")
        heard = 0
        for place, siege in list(running.items()):
            count = len(siege.asks)
            result = siege.hear(scores[heard : heard + count])
            heard += count
            if result is not None:
                results[place] = result
                del running[place]
                if file:
                    file.append(place, result)
    return [results[place] for place in range(len(texts))]


class _Siege:
    """The attack on one text: what it asks next, until there is a result."""

    def __init__(
        self, attack: WordAttack, text: str, label: int, threshold: float, seed: int
    ) -> None:
        self._attack = attack
        self._text = text
        self._words = Words.of(text)
        # By text, not by place: a text is attacked alike in every set.
        self._randomness = random.Random(f"{seed}:{text}")
        max_words = attack.max_words(self._words)
        self._questions = Questions(label, threshold, attack.max_queries, max_words)
        self._search = self._whole_search()
        self._scores: dict[str, float] = {}
        self.asks = next(self._search)

    def hear(self, scores: Sequence[float]) -> AttackResult | None:
        """Go on with the scores of what was asked; a result at the end."""
        self._scores.update(zip(self.asks, scores, strict=True))
        try:
            self.asks = self._search.send(scores)
        except StopIteration as end:
            return self._result(end.value)
        return None

    def _whole_search(self) -> Search:
        (score,) = yield from self._questions.ask([self._text])
        if self._questions.misleads(score):
            return self._words
        search = self._attack.search(self._words, score, self._questions, self._randomness)
        return (yield from search)

    def _result(self, found: Words) -> AttackResult:
        clean = self._scores[self._text]
        score = self._scores[found.text]
        status: Status = "succeeded" if self._questions.misleads(score) else "failed"
        if self._questions.misleads(clean):
            status = "skipped"
        return AttackResult(
            text=self._text,
            label=self._questions.label,
            adversarial=found.text,
            status=status,
            clean_score=clean,
            score=score,
            queries=self._questions.asked,
            words=len(self._words),
            changed_words=len(found.changed),
        )
