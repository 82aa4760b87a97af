"""BLEU over a corpus."""

import math
from collections import Counter
from collections.abc import Sequence

# Of the COCO evaluation: what keeps its quotients finite, kept to give the same digits.
_TINY, _SMALL = 1e-15, 1e-9


def bleu(preds: Sequence[str], references: Sequence[Sequence[str]], max_n: int = 4) -> list[float]:
    """BLEU-1 to BLEU-``max_n`` of a corpus, each in [0, 1].

    Papineni et al., ACL 2002: the geometric mean of the clipped n-gram precisions of the whole
    corpus, times the brevity penalty. The reference length of a sentence is the closest one, of two
    equally close the shorter. Equal to ``pycocoevalcap`` digit for digit; words are what stands
    between blanks.

    Args:
        preds: one sentence a segment.
        references: one or more sentences a segment.
        max_n: longest n-gram.
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


Ngram = tuple[str, ...]


def ngram_counts(words: Sequence[str], max_n: int = 4) -> Counter[Ngram]:
    """How often each run of 1 to ``max_n`` words occurs."""
    return Counter(
        tuple(words[start : start + n])
        for n in range(1, max_n + 1)
        for start in range(len(words) - n + 1)
    )
