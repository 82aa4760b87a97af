"""CIDEr-D of a corpus."""

import math
from collections import Counter
from collections.abc import Callable, Sequence

from lightning_plugins.metrics.captioning.bleu import Ngram, ngram_counts

_MAX_N, _SIGMA = 4, 6.0
Vector = tuple[list[dict[Ngram, float]], list[float], int]
"""Weights of the n-grams for each n, their norms, and the number of bigrams."""


def cider_d(preds: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Compute the CIDEr-D of a corpus, in [0, 10].

    Vedantam et al., CVPR 2015, section 5 and its "D" variant: clipped cosine similarities of tf-idf
    vectors of n-grams, damped by the difference in length, averaged over the references and n = 1
    to 4, times 10. The document frequencies are those of the references of *this* corpus, so the
    score of a part of a corpus is not comparable to the score of the whole, and the score of a
    single segment is 0. The result equals ``pycocoevalcap``, which measures the length in bigrams.

    Args:
        preds: One sentence per segment.
        references: One or more sentences per segment.
    """
    counted = [[ngram_counts(sentence.split()) for sentence in group] for group in references]
    document_frequency = Counter(ngram for group in counted for ngram in set().union(*group))
    log_segments = math.log(len(counted))

    def rarity(ngram: Ngram) -> float:
        return log_segments - math.log(max(1, document_frequency[ngram]))

    total = []
    for pred, group in zip(preds, counted, strict=True):
        vector = _vector(ngram_counts(pred.split()), rarity)
        similarity = sum(_similarity(vector, _vector(counts, rarity)) for counts in group)
        total.append(10 * similarity / len(group))
    return math.fsum(total) / len(total)


def _vector(counts: Counter[Ngram], rarity: Callable[[Ngram], float]) -> Vector:
    weights: list[dict[Ngram, float]] = [{} for _ in range(_MAX_N)]
    for ngram, count in counts.items():
        weights[len(ngram) - 1][ngram] = count * rarity(ngram)
    norms = [math.sqrt(sum(weight**2 for weight in of_n.values())) for of_n in weights]
    return weights, norms, sum(count for ngram, count in counts.items() if len(ngram) == 2)


def _similarity(pred: Vector, reference: Vector) -> float:
    """Return the mean over n of the clipped cosine, damped by the difference in length."""
    cosines = 0.0
    for weights, norm, wanted, wanted_norm in zip(*pred[:2], *reference[:2], strict=True):
        product = sum(
            min(weight, wanted[ngram]) * wanted[ngram]
            for ngram, weight in weights.items()
            if ngram in wanted
        )
        if norm and wanted_norm:
            product /= norm * wanted_norm
        cosines += product
    return cosines / _MAX_N * math.exp(-((pred[2] - reference[2]) ** 2) / (2 * _SIGMA**2))
