"""METEOR 1.5 with its exact and stem stages, without Java."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from lightning_plugins.metrics.captioning.english_stemmer import stem

# The parameters for English (Denkowski and Lavie, WMT 2014, table 2).
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_STEM_WEIGHT = 0.6
"""Weight of a match of stems in the score and in the alignment; a match of words has weight 1."""
_BEAM_WIDTH = 40
# Function words: the most frequent words of English news.
_FUNCTION_WORDS_TEXT = """
    the , . to of and a in that for " is on 's it with was as said at he by be from have has are
    his but an this not i will ’ they ) -rrb- ( -lrb- who their had we which were been more or s
    its would about new one after you : also up when there than $ all out her people she year two -
    can if last first “ over other ” into some what so -- no time years could ? 't — '
"""
_FUNCTION_WORDS = frozenset(_FUNCTION_WORDS_TEXT.split())


class Statistics(NamedTuple):
    """The statistics that METEOR sums over segments, by content words and function words."""

    content: int = 0
    function: int = 0
    reference_content: int = 0
    reference_function: int = 0
    matched: float = 0.0
    reference_matched: float = 0.0
    matches: int = 0
    chunks: int = 0

    def score(self) -> float:
        """Return the weighted harmonic mean of precision and recall, times the chunk penalty."""
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
    """Compute METEOR of a corpus and of its segments, each in [0, 1].

    Denkowski and Lavie, WMT 2014, with the parameters for English: content words have weight 0.75,
    function words 0.25, and matches of stems 0.6. Each segment uses its best reference. The score
    of the corpus is computed from the *summed* statistics, as usually reported; it is not the mean
    of the segments.

    The original also matches synonyms and paraphrases from 60 MB of tables and therefore scores
    higher (by 1.4 points on LEVIR-CC). Report this score as ``exact`` or ``exact_stem``, not as
    METEOR. Remove full stops first; abbreviations are not distinguished from ends of sentences.

    Args:
        preds: One sentence per segment.
        references: One or more sentences per segment.
        stems: Also match words with equal stems; False matches equal words only.

    Returns:
        The score of the corpus, and the scores of the segments.
    """
    best = [
        _best_reference(pred, tuple(sentences), stems)
        for pred, sentences in zip(preds, references, strict=True)
    ]
    total = Statistics(*(sum(column) for column in zip(*best, strict=True)))
    return total.score(), [statistics.score() for statistics in best]


def tokenized(sentence: str) -> list[str]:
    """Split a sentence into lower-case words and punctuation, like the original with ``-norm``.

    A hyphen within a word separates two words. An apostrophe between letters starts a new word.
    """
    text = re.sub(r"(?<=\S)-(?=\S)", " ", sentence.lower())
    text = re.sub(r"([^\w\s.',-]|_)", r" \1 ", text)
    text = re.sub(r"(?<!\d),|,(?!\d)", " , ", text)
    text = re.sub(r"(?<![^\W\d_])'|'(?![^\W\d_])", " ' ", text)
    return re.sub(r"(?<=[^\W\d_])'(?=[^\W\d_])", " '", text).split()


@lru_cache(maxsize=4096)  # sentences repeat: many pairs have no change and the same references
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
        weight = 1.0 if exact else _STEM_WEIGHT
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


class Alignment(NamedTuple):
    """Matched words of a caption and a reference.

    Args:
        matches: ``(index in the caption, index in the reference, exact)``.
        chunks: Number of runs of matches that are adjacent and in the same order in both sentences.
    """

    matches: tuple[tuple[int, int, bool], ...]
    chunks: int


class _Path(NamedTuple):
    # Paths are sorted by their fields: largest weight of matches, fewest chunks, least distance.
    unmatched: float
    chunks: int
    distance: int
    rank: int  # order of creation, for ties
    used: int  # bit set of the caption's words
    next_place: int  # index in the caption that continues the run; -1 outside of a run
    matches: tuple[tuple[int, int, bool], ...]


def align(
    caption: Sequence[str],
    reference: Sequence[str],
    caption_stems: Sequence[str] | None = None,
    reference_stems: Sequence[str] | None = None,
) -> Alignment:
    """Compute the alignment of Denkowski and Lavie (METEOR 1.5, WMT 2014, section 2).

    Among all one-to-one alignments it has the most matches, then the fewest chunks, then the
    smallest distance. A beam search over the reference's words with the original's width of 40
    finds it. If stems are given, words with equal stems match too.
    """
    candidates = []
    for place, word in enumerate(reference):
        found = [(other, True) for other, its in enumerate(caption) if its == word]
        if caption_stems is not None and reference_stems is not None:
            stem = reference_stems[place]
            found += [
                (other, False)
                for other, its in enumerate(caption_stems)
                if its == stem and caption[other] != word
            ]
        candidates.append(found)
    return _only_choice(candidates) or _search(candidates)


def _only_choice(candidates: list[list[tuple[int, bool]]]) -> Alignment | None:
    """Return the alignment if every word has at most one candidate, as in most short captions."""
    matches = [
        (other, place, exact) for place, found in enumerate(candidates) for other, exact in found
    ]
    if len({match[0] for match in matches}) < len(matches):
        return None
    if len({match[1] for match in matches}) < len(matches):
        return None
    chunks = sum(
        index == 0 or (other, place) != (matches[index - 1][0] + 1, matches[index - 1][1] + 1)
        for index, (other, place, _) in enumerate(matches)
    )
    return Alignment(tuple(matches), chunks)


def _search(candidates: list[list[tuple[int, bool]]]) -> Alignment:
    num_candidates = Counter(other for found in candidates for other, _ in found)
    paths = [_Path(0.0, 0, 0, 0, 0, -1, ())]
    for place, found in enumerate(candidates):
        # Two words whose only candidates are each other are matched in every path.
        settled = len(found) == 1 and num_candidates[found[0][0]] == 1
        advanced: list[_Path] = []
        for path in sorted(paths)[:_BEAM_WIDTH]:
            for other, exact in found:
                if path.used >> other & 1:
                    continue
                breaks = path.next_place not in (-1, other)
                advanced.append(
                    _Path(
                        path.unmatched - (1.0 if exact else _STEM_WEIGHT),
                        path.chunks + breaks,
                        path.distance + abs(place - other),
                        len(advanced),
                        path.used | 1 << other,
                        other + 1,
                        (*path.matches, (other, place, exact)),
                    )
                )
            if settled:
                continue
            closes = path.next_place != -1
            advanced.append(
                path._replace(chunks=path.chunks + closes, rank=len(advanced), next_place=-1)
            )
        paths = advanced
    closed = [path._replace(chunks=path.chunks + (path.next_place != -1)) for path in paths]
    best = min(closed)
    return Alignment(best.matches, best.chunks)
