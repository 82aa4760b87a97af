"""Detectors as victims of an attack: with noise, under attack in expectation, for TextAttack."""

from collections.abc import Callable, Iterable, Sequence

from lightning_plugins.attacks.text.results import AttackResult

Victim = Callable[[list[str]], Iterable[float]]
"""A function from texts to probabilities of AI."""
RandomizedDetector = Callable[[list[str], int], Iterable[float]]
"""A function from texts and a seed of the noise to probabilities of AI."""


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
            answers = self._detector(texts, self._next_seed)
            total = [a + float(b) for a, b in zip(total, answers, strict=True)]
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
        scores = detector(texts, seed + draw)
        for place, (score, result) in enumerate(zip(scores, results, strict=True)):
            misled[place] += (float(score) > threshold) != bool(result.label)
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
