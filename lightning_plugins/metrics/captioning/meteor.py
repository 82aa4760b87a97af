"""METEOR 1.5 without Java: exact and stem matches, synonyms of WordNet, and paraphrases."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from lightning_plugins.metrics.captioning.english_stemmer import stem

# The parameters for English (Denkowski and Lavie, WMT 2014, table 2).
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
# Weights of matches in the score and in the alignment; a match of equal words has weight 1.
_STEM_WEIGHT, _SYNONYM_WEIGHT, _PARAPHRASE_WEIGHT = 0.6, 0.8, 0.6
LONGEST_PHRASE = 5
"""Most words of a phrase that is looked for among the paraphrases."""
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
    reference_matches: int = 0
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
        fragmentation = 2 * self.chunks / (self.matches + self.reference_matches)
        return mean * (1 - _GAMMA * fragmentation**_BETA)


@dataclass(frozen=True)
class MatchStages:
    """The ways in which METEOR matches words, besides equality.

    Args:
        stems: Words with equal stems.
        synonyms: Function that returns whether two words have a common meaning, for example
            :func:`~lightning_plugins.metrics.captioning.meteor_tables.wordnet_synonyms`.
        paraphrases: Pairs of phrases, for example from
            :func:`~lightning_plugins.metrics.captioning.meteor_tables.read_paraphrases`.
    """

    stems: bool = True
    synonyms: Callable[[str, str], bool] | None = None
    paraphrases: frozenset[tuple[str, str]] = frozenset()

    @property
    def name(self) -> str:
        """The stages, such as ``exact_stem_synonym``."""
        names = {"stem": self.stems, "synonym": self.synonyms, "paraphrase": self.paraphrases}
        return "_".join(["exact", *(name for name, used in names.items() if used)])


_ONLY_EQUAL, _WITH_STEMS = MatchStages(stems=False), MatchStages()


def meteor(
    preds: Sequence[str],
    references: Sequence[Sequence[str]],
    stems: bool = True,
    stages: MatchStages | None = None,
) -> tuple[float, list[float]]:
    """Compute METEOR of a corpus and of its segments, each in [0, 1].

    Denkowski and Lavie, WMT 2014, with the parameters for English: content words have weight 0.75,
    function words 0.25; matches of stems have weight 0.6, of synonyms 0.8, of paraphrases 0.6. Each
    segment uses its best reference. The score of the corpus is computed from the *summed*
    statistics, as usually reported; it is not the mean of the segments.

    Report the score with its stages, for example as ``exact_stem``, and not as METEOR: the original
    has all four, with its own copy of WordNet 3.0. Remove full stops first; abbreviations are not
    distinguished from ends of sentences.

    Args:
        preds: One sentence per segment.
        references: One or more sentences per segment.
        stems: Also match words with equal stems; False matches equal words only.
        stages: All stages; replaces ``stems``.

    Returns:
        The score of the corpus, and the scores of the segments.
    """
    stages = stages or (_WITH_STEMS if stems else _ONLY_EQUAL)
    best = [
        _best_reference(pred, tuple(sentences), stages)
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
def _best_reference(pred: str, sentences: tuple[str, ...], stages: MatchStages) -> Statistics:
    found = [_statistics(pred, sentence, stages) for sentence in sentences]
    return max(found, key=Statistics.score)


def _statistics(pred: str, sentence: str, stages: MatchStages) -> Statistics:
    words, wanted = tokenized(pred), tokenized(sentence)
    found = align(words, wanted, stages)
    matched = reference_matched = 0.0
    matches = reference_matches = 0
    for match in found.matches:
        own = words[match.place : match.place + match.length]
        others = wanted[match.reference_place : match.reference_place + match.reference_length]
        matched += match.weight * sum(map(_word_weight, own))
        reference_matched += match.weight * sum(map(_word_weight, others))
        matches += match.length
        reference_matches += match.reference_length
    function = sum(word in _FUNCTION_WORDS for word in words)
    reference_function = sum(word in _FUNCTION_WORDS for word in wanted)
    whole = matches == len(words) and reference_matches == len(wanted) and found.chunks == 1
    return Statistics(
        len(words) - function,
        function,
        len(wanted) - reference_function,
        reference_function,
        matched,
        reference_matched,
        matches,
        reference_matches,
        0 if whole else found.chunks,
    )


def _word_weight(word: str) -> float:
    return 1 - _DELTA if word in _FUNCTION_WORDS else _DELTA


class Match(NamedTuple):
    """Matching words: ``length`` from ``place`` in the caption, likewise in the reference."""

    place: int
    reference_place: int
    weight: float
    length: int = 1
    reference_length: int = 1


class Alignment(NamedTuple):
    """Matched words of a caption and a reference.

    Args:
        matches: The matches, by their place in the reference.
        chunks: Number of runs of matches that are adjacent and in the same order in both sentences.
    """

    matches: tuple[Match, ...]
    chunks: int


class _Path(NamedTuple):
    # Paths are sorted by their fields: largest weight of matches, fewest chunks, least distance.
    unmatched: float
    chunks: int
    distance: int
    rank: int  # order of creation, for ties
    used: int  # bit set of the caption's words
    next_place: int  # index in the caption that continues the run; -1 outside of a run
    next_reference: int  # index in the reference from which words are free
    matches: tuple[Match, ...]


def align(
    caption: Sequence[str], reference: Sequence[str], stages: MatchStages = _ONLY_EQUAL
) -> Alignment:
    """Compute the alignment of Denkowski and Lavie (METEOR 1.5, WMT 2014, section 2).

    Among all one-to-one alignments it has the largest weight of matches, then the fewest chunks,
    then the smallest distance. A beam search over the reference's words with the original's width
    of 40 finds it.
    """
    own_stems = [stem(word) for word in caption] if stages.stems else []
    candidates = []
    for place, word in enumerate(reference):
        its_stem = stem(word) if stages.stems else None
        found = []
        for other, its in enumerate(caption):
            if its == word:
                found.append(Match(other, place, 1.0))
            elif stages.stems and own_stems[other] == its_stem:
                found.append(Match(other, place, _STEM_WEIGHT))
            elif stages.synonyms is not None and stages.synonyms(its, word):
                found.append(Match(other, place, _SYNONYM_WEIGHT))
        if stages.paraphrases:
            found += _paraphrased(caption, reference, place, stages.paraphrases)
        candidates.append(found)
    return _only_choice(candidates) or _search(candidates)


def _paraphrased(
    caption: Sequence[str],
    reference: Sequence[str],
    place: int,
    table: frozenset[tuple[str, str]],
) -> Iterator[Match]:
    for stop in range(place + 1, min(place + LONGEST_PHRASE, len(reference)) + 1):
        phrase = " ".join(reference[place:stop])
        for start in range(len(caption)):
            for end in range(start + 1, min(start + LONGEST_PHRASE, len(caption)) + 1):
                own = " ".join(caption[start:end])
                if own != phrase and ((own, phrase) in table or (phrase, own) in table):
                    yield Match(start, place, _PARAPHRASE_WEIGHT, end - start, stop - place)


def _only_choice(candidates: list[list[Match]]) -> Alignment | None:
    """Return the alignment if every word has at most one candidate, as in most short captions."""
    matches = [match for found in candidates for match in found]
    if len({match.place for match in matches}) < len(matches):
        return None
    if len({match.reference_place for match in matches}) < len(matches):
        return None
    if any(match.length > 1 or match.reference_length > 1 for match in matches):
        return None
    chunks = sum(
        index == 0
        or (match.place, match.reference_place)
        != (matches[index - 1].place + 1, matches[index - 1].reference_place + 1)
        for index, match in enumerate(matches)
    )
    return Alignment(tuple(matches), chunks)


def _search(candidates: list[list[Match]]) -> Alignment:
    matches = [match for found in candidates for match in found]
    covering = Counter(match.place + step for match in matches for step in range(match.length))
    has_phrases = any(match.reference_length > 1 for match in matches)
    paths = [_Path(0.0, 0, 0, 0, 0, -1, 0, ())]
    for place, found in enumerate(candidates):
        # Two words whose only candidates are each other are matched in every path.
        settled = len(found) == 1 and covering[found[0].place] == 1 and not has_phrases
        advanced: list[_Path] = []
        for path in sorted(paths)[:_BEAM_WIDTH]:
            if path.next_reference > place:
                advanced.append(path._replace(rank=len(advanced)))
                continue
            for match in found:
                span = ((1 << match.length) - 1) << match.place
                if path.used & span:
                    continue
                breaks = path.next_place not in (-1, match.place)
                size = (match.length + match.reference_length) / 2
                advanced.append(
                    _Path(
                        path.unmatched - match.weight * size,
                        path.chunks + breaks,
                        path.distance + abs(place - match.place),
                        len(advanced),
                        path.used | span,
                        match.place + match.length,
                        place + match.reference_length,
                        (*path.matches, match),
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
