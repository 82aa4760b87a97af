"""Attacks on many texts at once, whose queries share one batch."""

import random
from collections.abc import Sequence
from pathlib import Path

from lightning_plugins.attacks.text.results import AttackResult, ResultFile, Status
from lightning_plugins.attacks.text.victims import Victim, checked_scores
from lightning_plugins.attacks.text.word_attack import Questions, Search, WordAttack
from lightning_plugins.attacks.text.words import Words


def attack_texts(
    attack: WordAttack,
    victim: Victim,
    texts: Sequence[str],
    labels: Sequence[int],
    *,
    threshold: float = 0.5,
    goal: float | None = None,
    cache: bool | None = None,
    seed: int = 0,
    at_once: int = 32,
    path: str | Path | None = None,
    victim_name: str = "",
) -> list[AttackResult]:
    """Attack each text that the detector classifies correctly; results are in the order of texts.

    The searches run concurrently and their queries are batched. If the victim always returns the
    same score for the same text, the results do not depend on ``at_once``.

    Args:
        attack: The attack, with its budgets.
        victim: A function from texts to probabilities of AI, such as ``ZeroShotDetector.score``.
        texts: The texts to attack.
        labels: The class of each text: 0 human, 1 AI.
        threshold: The detector predicts AI if the score is above this value. To measure what evades
            a cautious detector, attack AI texts with the threshold at a false positive rate of 1 %.
        goal: The probability of the wrong class that a search has to reach, in (0, 1]; None ends it
            at the threshold. With two classes, this is a goal targeted at the other class.
        cache: Ask each text of a search once. None does so unless the victim has new noise in each
            answer, as :class:`FreshNoise`; give False for another victim with noise.
        seed: The seed of the candidates; each text has its own generator.
        at_once: The number of concurrent searches, at least 1.
        path: The path of a file of JSON lines for the results; an existing file is continued.
        victim_name: The name of the victim in that file, which keeps results of different victims
            apart. Nothing else in the file identifies the victim, so name the checkpoint here.

    Raises:
        ValueError: An argument is outside its range, labels are not 0 and 1, the victim returns
            another number of scores, or the file belongs to another run.
    """
    if len(texts) != len(labels):
        raise ValueError(f"labels has {len(labels)} entries: expected {len(texts)}, one per text")
    if wrong := set(labels) - {0, 1}:
        raise ValueError(f"labels has {sorted(wrong)}: expected 0 (human) and 1 (AI)")
    if at_once < 1:
        raise ValueError(f"at_once={at_once}: expected at least 1")
    if goal is not None and not 0 < goal <= 1:
        raise ValueError(f"goal={goal}: expected a probability in (0, 1], or None")
    if cache is None:
        cache = not getattr(victim, "has_new_noise", False)
    key = f"{attack!r}, threshold={threshold!r}, goal={goal!r}, cache={cache}, seed={seed}"
    if victim_name:
        key += f", victim {victim_name}"
    file = ResultFile(Path(path), key, texts, labels) if path is not None else None
    results: dict[int, AttackResult] = file.read() if file else {}
    waiting = [place for place in range(len(texts)) if place not in results]
    running: dict[int, _RunningAttack] = {}
    while waiting or running:
        while waiting and len(running) < at_once:
            place = waiting.pop(0)
            label = int(labels[place])
            questions = Questions(label, threshold, attack.max_queries, 0, attack.constraints, goal)
            questions.known = {} if cache else None
            running[place] = _RunningAttack(attack, texts[place], questions, seed)
        queries = [text for one in running.values() for text in one.queries]
        scores = checked_scores(victim(queries), len(queries))
        used = 0
        for place, one in list(running.items()):
            count = len(one.queries)
            result = one.receive(scores[used : used + count])
            used += count
            if result is not None:
                results[place] = result
                del running[place]
                if file:
                    file.append(place, result)
    return [results[place] for place in range(len(texts))]


class _RunningAttack:
    """The attack on one text, with its next queries, until it has a result."""

    def __init__(self, attack: WordAttack, text: str, questions: Questions, seed: int) -> None:
        self._attack = attack
        self._text = text
        self._words = Words.of(text)
        # Seeded by the text, not its position: a text is attacked alike in every data set.
        self._randomness = random.Random(f"{seed}:{text}")
        questions.max_words = attack.max_words(self._words)
        self._questions = questions
        self._search = self._whole_search()
        self._scores: dict[str, float] = {}
        self.queries = next(self._search)

    def receive(self, scores: Sequence[float]) -> AttackResult | None:
        """Continue with the scores of ``queries``; return the result if the search has ended."""
        self._scores.update(zip(self.queries, scores, strict=True))
        try:
            self.queries = self._search.send(scores)
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
        status: Status = "succeeded" if self._questions.reaches_goal(score) else "failed"
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
