"""Detectors as victims of an attack: with noise, under attack in expectation, for TextAttack."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lightning_plugins.attacks.text.results import AttackResult

Victim = Callable[[list[str]], Iterable[float]]
"""A function from texts to probabilities of AI."""
RandomizedDetector = Callable[[list[str], int], Iterable[float]]
"""A function from texts and a seed of the noise to probabilities of AI."""


def checked_scores(answer: Any, count: int) -> list[float]:
    """Return a victim's answer as probabilities of AI.

    Accepts a sequence, an array or a tensor of ``count`` probabilities, one column of them, or two
    columns P(human) and P(AI) whose rows add up to 1, from which the second is taken.

    Raises:
        ValueError: The answer has another number of scores, or contains NaN, or numbers outside
            [0, 1], such as logits.
    """
    values = answer.tolist() if hasattr(answer, "tolist") else list(answer)
    if len(values) != count:
        raise ValueError(f"victim returned {len(values)} scores for {count} texts")
    rows = [row.tolist() if hasattr(row, "tolist") else row for row in values]
    columns = {len(row) if isinstance(row, (list, tuple)) else 0 for row in rows}
    if columns == {1}:
        rows = [row[0] for row in rows]
    elif columns == {2}:
        if any(abs(float(row[0]) + float(row[1]) - 1) > 1e-3 for row in rows):
            raise ValueError(
                "the victim's scores have two columns whose rows do not add up to 1: expected "
                "P(human) and P(AI); apply softmax to logits"
            )
        rows = [row[1] for row in rows]
    try:
        scores = [float(row) for row in rows]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the victim's scores are not numbers ({repr(rows[0])[:80]}): expected one probability "
            "of AI per text"
        ) from error
    for score in scores:
        if not -1e-6 <= score <= 1 + 1e-6:  # NaN is not in the interval either
            remedy = "" if math.isnan(score) else "; apply a sigmoid or softmax to logits"
            raise ValueError(
                f"the victim's scores contain {score:.3g}: expected probabilities in [0, 1]{remedy}"
            )
    return scores


class FreshNoise:
    """A victim that uses new noise in each call, as a deployed detector would.

    Args:
        detector: A function from texts and a seed of the noise to probabilities of AI.
        samples: The number of draws that are averaged. More than one is expectation over
            transformation: the search climbs the mean of the defence instead of one draw (Athalye
            et al., arXiv 1802.00420). The average counts as one query in the results.
        seed: The seed of the first draw.

    Raises:
        ValueError: An argument is outside its range.
    """

    has_new_noise = True

    def __init__(self, detector: RandomizedDetector, samples: int = 1, seed: int = 0) -> None:
        if samples < 1:
            raise ValueError(f"samples={samples}: expected at least 1")
        if seed < 0:
            raise ValueError(f"seed={seed}: expected at least 0")
        self._detector = detector
        self._samples = samples
        self._next_seed = seed

    def __call__(self, texts: list[str]) -> list[float]:
        """Return the mean probabilities of AI over the next ``samples`` draws."""
        total = [0.0] * len(texts)
        for _ in range(self._samples):
            answers = checked_scores(self._detector(texts, self._next_seed), len(texts))
            total = [a + b for a, b in zip(total, answers, strict=True)]
            self._next_seed += 1
        return [x / self._samples for x in total]


def still_misled(
    results: Sequence[AttackResult],
    detector: RandomizedDetector,
    draws: int = 10,
    *,
    threshold: float = 0.5,
    seed: int = 2**31,
) -> list[float]:
    """Return, for each result, the share of new draws in which its text misleads the detector.

    A search among noisy scores keeps texts that were lucky in one draw. A success of the search may
    fail in the next draw, and a failure may succeed. Apply this function to all results: the
    accuracy under attack with fresh noise is one minus the mean.

    Args:
        results: The results of :func:`attack_texts`.
        detector: The detector that was attacked.
        draws: The number of draws of the noise, at least 1.
        threshold: The detector predicts AI if the score is above this value.
        seed: The seed of the first draw; it must be far from the seeds of the attack.

    Raises:
        ValueError: ``draws`` is below 1.
    """
    if draws < 1:
        raise ValueError(f"draws={draws}: expected at least 1")
    texts = [result.adversarial for result in results]
    misled = [0] * len(results)
    for draw in range(draws):
        scores = checked_scores(detector(texts, seed + draw), len(texts))
        for place, (score, result) in enumerate(zip(scores, results, strict=True)):
            misled[place] += (score > threshold) != bool(result.label)
    return [count / draws for count in misled]


class TextAttackVictim:
    """Adapts a detector to TextAttack, whose model wrappers return rows of P(human) and P(AI).

    TextAttack's requirements conflict with ours. Install it in a separate environment, together
    with this package without its extras, or load the detector there behind any function from texts
    to scores::

        textattack.Attack(UntargetedClassification(TextAttackVictim(detector.score)), ...)

    Args:
        score: A function from texts to probabilities of AI, such as ``ZeroShotDetector.score``.

    Attributes:
        model: ``score``; TextAttack names it in its warnings.
    """

    def __init__(self, score: Victim) -> None:
        self.model = score

    def __call__(self, texts: list[str]) -> list[list[float]]:
        """Return one row per text."""
        return [[1 - float(p), float(p)] for p in self.model(list(texts))]
