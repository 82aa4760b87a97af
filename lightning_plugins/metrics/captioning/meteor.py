"""METEOR 1.5 with its exact and stem stages, without Java."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from lightning_plugins.metrics.captioning.english_stemmer import stem
from lightning_plugins.metrics.captioning.meteor_alignment import STEM_WEIGHT, align

# For English, tuned by its authors (Denkowski and Lavie, WMT 2014, table 2).
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
# The words that count as function words: the most frequent ones of English news.
_FUNCTION_WORDS_TEXT = """
    the , . to of and a in that for " is on 's it with was as said at he by be from have has are
    his but an this not i will ’ they ) -rrb- ( -lrb- who their had we which were been more or s
    its would about new one after you : also up when there than $ all out her people she year two -
    can if last first “ over other ” into some what so -- no time years could ? 't — '
"""
_FUNCTION_WORDS = frozenset(_FUNCTION_WORDS_TEXT.split())


class Statistics(NamedTuple):
    """What METEOR adds up over segments; lengths and matches by content and function words."""

    content: int = 0
    function: int = 0
    reference_content: int = 0
    reference_function: int = 0
    matched: float = 0.0
    reference_matched: float = 0.0
    matches: int = 0
    chunks: int = 0

    def score(self) -> float:
        """The harmonic mean of precision and recall, less the penalty for scattered matches."""
        if not self.matches:
            return 0.0
        precision = self.matched / (_DELTA * self.content + (1 - _DELTA) * self.function)
        recall = self.reference_matched / (
            _DELTA * self.reference_content + (1 - _DELTA) * self.reference_function
        )
        mean = 1 / ((1 - _ALPHA) / precision + _ALPHA / recall)
        return mean * (1 - _GAMMA * (self.chunks / self.matches) ** _BETA)


def meteor(
    preds: Sequence[str], references: Sequence[Sequence[str]], stems: bool = True
) -> tuple[float, list[float]]:
    """METEOR of a corpus and of its segments, each in [0, 1].

    Denkowski and Lavie, WMT 2014, with the parameters for English: content words weigh 0.75 and
    function words 0.25, matches of stems 0.6. The best reference of a segment counts; the corpus'
    score is that of the *summed* statistics, as everybody reports it, not the mean of segments.

    The original also matches synonyms and paraphrases, out of 60 MB of tables, and so scores higher
    (by 1.4 points on LEVIR-CC): call this score ``exact`` or ``exact_stem``, never plain METEOR.
    Full stops should be removed first; abbreviations are not told from ends of sentences.

    Args:
        preds: one sentence a segment.
        references: one or more sentences a segment.
        stems: match words of one stem too, else equal words only.
    """
    best = [
        _best_reference(pred, tuple(sentences), stems)
        for pred, sentences in zip(preds, references, strict=True)
    ]
    total = Statistics(*(sum(column) for column in zip(*best, strict=True)))
    return total.score(), [statistics.score() for statistics in best]


def tokenized(sentence: str) -> list[str]:
    """Words and punctuation in lower case, as the original's ``-norm`` splits them.

    A hyphen within a word separates; an apostrophe between letters begins the second part.
    """
    text = re.sub(r"(?<=\S)-(?=\S)", " ", sentence.lower())
    text = re.sub(r"([^\w\s.',-]|_)", r" \1 ", text)
    text = re.sub(r"(?<!\d),|,(?!\d)", " , ", text)
    text = re.sub(r"(?<![^\W\d_])'|'(?![^\W\d_])", " ' ", text)
    return re.sub(r"(?<=[^\W\d_])'(?=[^\W\d_])", " '", text).split()


@lru_cache(maxsize=4096)  # sentences repeat: all pairs without change share theirs
def _best_reference(pred: str, sentences: tuple[str, ...], stems: bool) -> Statistics:
    found = [_statistics(pred, sentence, stems) for sentence in sentences]
    return max(found, key=Statistics.score)


def _statistics(pred: str, sentence: str, stems: bool) -> Statistics:
    words, wanted = tokenized(pred), tokenized(sentence)
    if stems:
        found = align(words, wanted, [stem(w) for w in words], [stem(w) for w in wanted])
    else:
        found = align(words, wanted)
    matched = reference_matched = 0.0
    for place, reference_place, exact in found.matches:
        weight = 1.0 if exact else STEM_WEIGHT
        matched += weight * _word_weight(words[place])
        reference_matched += weight * _word_weight(wanted[reference_place])
    function = sum(word in _FUNCTION_WORDS for word in words)
    reference_function = sum(word in _FUNCTION_WORDS for word in wanted)
    whole = len(found.matches) == len(words) == len(wanted) and found.chunks == 1
    return Statistics(
        len(words) - function,
        function,
        len(wanted) - reference_function,
        reference_function,
        matched,
        reference_matched,
        len(found.matches),
        0 if whole else found.chunks,
    )


def _word_weight(word: str) -> float:
    return 1 - _DELTA if word in _FUNCTION_WORDS else _DELTA
