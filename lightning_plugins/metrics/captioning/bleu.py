"""BLEU of a corpus, and the n-gram counts that BLEU and CIDEr-D use."""

import math
from collections import Counter
from collections.abc import Sequence

# The COCO evaluation adds these to avoid divisions by zero; they are needed for equal digits.
_TINY, _SMALL = 1e-15, 1e-9
Ngram = tuple[str, ...]


def bleu(preds: Sequence[str], references: Sequence[Sequence[str]], max_n: int = 4) -> list[float]:
    """Compute BLEU-1 to BLEU-``max_n`` of a corpus, each in [0, 1].

    Papineni et al., ACL 2002: the geometric mean of the clipped n-gram precisions of the whole
    corpus, times the brevity penalty. The reference length of a segment is the one closest to the
    length of its prediction, and the shorter one of two equally close. The result equals
    ``pycocoevalcap`` digit for digit. Words are separated by white space.

    Args:
        preds: One sentence per segment.
        references: One or more sentences per segment.
        max_n: Length of the longest n-gram.
    """
    matched, possible = [0] * max_n, [0] * max_n
    length, reference_length = 0, 0
    for pred, sentences in zip(preds, references, strict=True):
        words, wanted = pred.split(), [sentence.split() for sentence in sentences]
        length += len(words)
        reference_length += min((abs(len(r) - len(words)), len(r)) for r in wanted)[1]
        most: Counter[Ngram] = Counter()
        for reference in wanted:
            most |= ngram_counts(reference, max_n)
        for ngram, count in (ngram_counts(words, max_n) & most).items():
            matched[len(ngram) - 1] += count
        for n in range(max_n):
            possible[n] += max(0, len(words) - n)
    ratio = (length + _TINY) / (reference_length + _SMALL)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    scores, product = [], 1.0
    for n in range(max_n):
        product *= (matched[n] + _TINY) / (possible[n] + _SMALL)
        scores.append(product ** (1 / (n + 1)) * penalty)
    return scores


def ngram_counts(words: Sequence[str], max_n: int = 4) -> Counter[Ngram]:
    """Count each sequence of 1 to ``max_n`` consecutive words."""
    return Counter(
        tuple(words[start : start + n])
        for n in range(1, max_n + 1)
        for start in range(len(words) - n + 1)
    )
