"""Which words of two sentences METEOR holds to be the same."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

_BEAM = 40
STEM_WEIGHT = 0.6
"""Of a match of stems, where a match of words is 1; in the score and in the choice of matches."""


class Alignment(NamedTuple):
    """Matched words, and in how many runs that are adjacent and in order in both sentences.

    Args:
        matches: ``(place in the caption, place in the reference, exact)``.
        chunks: number of those runs.
    """

    matches: tuple[tuple[int, int, bool], ...]
    chunks: int


class _Path(NamedTuple):
    # Sorted by this: more matches, by weight; then fewer chunks; then words that moved less.
    unmatched: float
    chunks: int
    distance: int
    rank: int  # among equals the order in which they came up
    used: int  # bits of the caption's words
    next_place: int  # in the caption, if the run goes on; -1 outside of a run
    matches: tuple[tuple[int, int, bool], ...]


def align(
    caption: Sequence[str],
    reference: Sequence[str],
    caption_stems: Sequence[str] | None = None,
    reference_stems: Sequence[str] | None = None,
) -> Alignment:
    """The alignment of Denkowski and Lavie (METEOR 1.5, WMT 2014, section 2).

    Among all one-to-one matches: as many as possible, in as few chunks as possible, with as little
    distance as possible; found by a beam search over the reference's words, 40 wide as theirs.
    With stems, words of one stem match too.
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
    """The alignment where no word has a choice; most pairs of short captions are so."""
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
    wishes = Counter(other for found in candidates for other, _ in found)
    paths = [_Path(0.0, 0, 0, 0, 0, -1, ())]
    for place, found in enumerate(candidates):
        # Two words that have no one but each other are matched in every path.
        settled = len(found) == 1 and wishes[found[0][0]] == 1
        advanced: list[_Path] = []
        for path in sorted(paths)[:_BEAM]:
            for other, exact in found:
                if path.used >> other & 1:
                    continue
                breaks = path.next_place not in (-1, other)
                advanced.append(
                    _Path(
                        path.unmatched - (1.0 if exact else STEM_WEIGHT),
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
