"""Detectors that answer with noise: queried afresh, attacked in expectation, and asked again."""

from collections.abc import Callable, Iterable, Sequence

from lightning_plugins.attacks.text.result import AttackResult

# From texts and a seed of the noise to probabilities of AI.
Randomised = Callable[[list[str], int], Iterable[float]]


class FreshNoise:
    """A victim that answers each list of texts with other noise, as a released model would.

    Args:
        detector: from texts and a seed of the noise to probabilities of AI.
        samples: answers that are averaged. More than one is expectation over transformation: the
            search climbs the mean of the defence instead of one draw (Athalye et al., arXiv
            1802.00420). Each counts as one query in the results.
        seed: of the first answer.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(self, detector: Randomised, samples: int = 1, seed: int = 0) -> None:
        if samples < 1:
            raise ValueError(f"samples={samples}: expected at least 1")
        if seed < 0:
            raise ValueError(f"seed={seed}: expected at least 0")
        self._detector = detector
        self._samples = samples
        self._next_seed = seed

    def __call__(self, texts: list[str]) -> list[float]:
        """Mean probabilities of AI over the next ``samples`` draws."""
        total = [0.0] * len(texts)
        for _ in range(self._samples):
            answers = self._detector(texts, self._next_seed)
            total = [a + float(b) for a, b in zip(total, answers, strict=True)]
            self._next_seed += 1
        return [x / self._samples for x in total]


def still_misled(
    results: Sequence[AttackResult],
    detector: Randomised,
    draws: int = 10,
    *,
    threshold: float = 0.5,
    seed: int = 2**31,
) -> list[float]:
    """Share of fresh draws in which each result's text misleads the detector.

    A search among noisy answers keeps lucky ones: what it calls a success may not be one for the
    next draw, and what it calls a failure may. Apply it to all results; the accuracy under attack
    by fresh noise is one minus the mean.

    Args:
        results: of :func:`attack_texts`.
        detector: that was attacked.
        draws: of the noise, at least 1.
        threshold: the detector says AI where the score is above it.
        seed: of the first draw; keep it away from those of the attack.

    Raises:
        ValueError: fewer than one draw.
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
