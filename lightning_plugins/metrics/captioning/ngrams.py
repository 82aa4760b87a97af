"""Counts of the n-grams of a sentence."""

from collections import Counter
from collections.abc import Sequence

Ngram = tuple[str, ...]


def ngram_counts(words: Sequence[str], max_n: int = 4) -> Counter[Ngram]:
    """How often each run of 1 to ``max_n`` words occurs."""
    return Counter(
        tuple(words[start : start + n])
        for n in range(1, max_n + 1)
        for start in range(len(words) - n + 1)
    )
