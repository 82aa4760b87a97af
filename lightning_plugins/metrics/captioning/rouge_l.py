"""ROUGE-L."""

import math
from collections.abc import Sequence
from functools import lru_cache

_BETA = 1.2  # of the COCO evaluation: recall counts a little more than precision


def rouge_l(preds: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean ROUGE-L F of the segments, in [0, 1].

    Lin, ACL 2004, by longest common subsequences, as ``pycocoevalcap`` computes it: precision and
    recall are each the best over the references, and the F-measure has ``beta = 1.2``.

    Args:
        preds: one sentence a segment.
        references: one or more sentences a segment.
    """
    pairs = zip(preds, references, strict=True)
    return math.fsum(_f_measure(pred, tuple(sentences)) for pred, sentences in pairs) / len(preds)


@lru_cache(maxsize=4096)  # sentences repeat: all pairs without change share theirs
def _f_measure(pred: str, sentences: tuple[str, ...]) -> float:
    words, wanted = pred.split(" "), [sentence.split(" ") for sentence in sentences]
    common = [_longest_common(words, reference) for reference in wanted]
    precision = max(common) / len(words)
    recall = max(length / len(r) for length, r in zip(common, wanted, strict=True))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest subsequence that both have."""
    lengths = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for place, other in enumerate(second, start=1):
            above = lengths[place]
            lengths[place] = diagonal + 1 if word == other else max(above, lengths[place - 1])
            diagonal = above
    return lengths[-1]
