"""ROUGE-L of a corpus."""

import math
from collections.abc import Sequence
from functools import lru_cache

_BETA = 1.2  # as in the COCO evaluation; above 1 it gives recall a larger weight than precision


def rouge_l(preds: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Compute the mean ROUGE-L F-measure of the segments, in [0, 1].

    Lin, ACL 2004, with longest common subsequences, as in ``pycocoevalcap``: precision and recall
    are each the maximum over the references, and the F-measure has ``beta = 1.2``.

    Args:
        preds: One sentence per segment.
        references: One or more sentences per segment.
    """
    pairs = zip(preds, references, strict=True)
    return math.fsum(_f_measure(pred, tuple(sentences)) for pred, sentences in pairs) / len(preds)


@lru_cache(maxsize=4096)  # sentences repeat: many pairs have no change and the same references
def _f_measure(pred: str, sentences: tuple[str, ...]) -> float:
    words, wanted = pred.split(" "), [sentence.split(" ") for sentence in sentences]
    common = [_longest_common(words, reference) for reference in wanted]
    precision = max(common) / len(words)
    recall = max(length / len(r) for length, r in zip(common, wanted, strict=True))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest common subsequence."""
    lengths = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for place, other in enumerate(second, start=1):
            above = lengths[place]
            lengths[place] = diagonal + 1 if word == other else max(above, lengths[place - 1])
            diagonal = above
    return lengths[-1]
