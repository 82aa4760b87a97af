"""Samples in three parts that share no source, and what was done for it."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from lightning_plugins.datamodules.ai_text.text_sample import (
    Sample,
    hash_of,
    normalised,
    num_words,
    words_between,
)

PARTS = ("train", "val", "test")
_COMPARED_WORDS = 20
_SHINGLE_WORDS = 8


@dataclass(frozen=True)
class Cleaning:
    """What was left out before the parts were made.

    Attributes:
        read: samples at first.
        short: samples of too few words.
        duplicates: samples whose first words another one has.
        contradictory: samples of which people and machines have the same first words.
    """

    read: int = 0
    short: int = 0
    duplicates: int = 0
    contradictory: int = 0


@dataclass(frozen=True)
class LeakReport:
    """Whether the test part can be known from training.

    Attributes:
        cleaning: what was left out.
        texts: part -> (human, AI).
        mean_words: part -> mean words of human and of AI texts.
        shared_sources: sources of the test part that training has; 0 by construction.
        overlapping: test texts that share eight words in a row with a training text.
    """

    cleaning: Cleaning
    texts: dict[str, tuple[int, int]] = field(default_factory=dict)
    mean_words: dict[str, tuple[float, float]] = field(default_factory=dict)
    shared_sources: int = 0
    overlapping: int = 0

    def __str__(self) -> str:
        """The report in a few lines."""
        parts = "; ".join(
            f"{part} {human} human and {ai} AI of {words[0]:.0f} and {words[1]:.0f} words"
            for (part, (human, ai)), words in zip(
                self.texts.items(), self.mean_words.values(), strict=True
            )
        )
        cleaning = self.cleaning
        return (
            f"texts: {parts}\n"
            f"left out of {cleaning.read}: {cleaning.short} short, {cleaning.duplicates} "
            f"duplicates, {cleaning.contradictory} of both labels\n"
            f"leaks: {self.shared_sources} test sources in training; {self.overlapping} test "
            f"texts share {_SHINGLE_WORDS} words in a row with training"
        )


def cleaned(
    samples: Sequence[Sample], min_words: int, max_words: int, skip_words: int
) -> tuple[list[Sample], Cleaning]:
    """Crops of equal length within each pair, without duplicates.

    A pair is cut to the words of its shortest text, at most ``max_words``; a text without a pair to
    ``max_words``. Texts of fewer than ``min_words`` words are left out, with their pair.
    """
    lengths: dict[str, int] = {}
    skipped = []
    for sample in samples:
        text = words_between(sample.text, skip_words, skip_words + max_words)
        skipped.append(sample.with_text(text))
        if sample.pair:
            lengths[sample.pair] = min(lengths.get(sample.pair, max_words), num_words(text))
    crops = [
        one.with_text(words_between(one.text, 0, lengths[one.pair])) if one.pair else one
        for one in skipped
    ]
    long_enough = [one for one in crops if num_words(one.text) >= min_words]
    openings = [hash_of(words_between(one.text, 0, _COMPARED_WORDS)) for one in long_enough]
    labels = defaultdict(set)
    for opening, one in zip(openings, long_enough, strict=True):
        labels[opening].add(one.label)
    kept: dict[str, Sample] = {}
    contradictory = 0
    for opening, one in zip(openings, long_enough, strict=True):
        if len(labels[opening]) > 1:
            contradictory += 1
        else:
            kept.setdefault(opening, one)
    duplicates = len(long_enough) - contradictory - len(kept)
    short = len(samples) - len(long_enough)
    return list(kept.values()), Cleaning(len(samples), short, duplicates, contradictory)


def split_by_source(
    samples: Iterable[Sample], val_share: float, test_share: float, seed: int
) -> dict[str, list[Sample]]:
    """Whole sources at random: test, then validation, each until it has its share of the samples.

    The shares are of each domain, so that all parts have all domains, and of a function of
    ``seed`` alone.
    """
    parts: dict[str, list[Sample]] = {part: [] for part in PARTS}
    domains: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        domains[sample.domain][sample.source].append(sample)
    for domain in sorted(domains):
        sources = domains[domain]
        order = sorted(sources)
        random.Random(f"{seed}:{domain}").shuffle(order)
        total = sum(map(len, sources.values()))
        counts = Counter[str]()
        for source in order:
            part = "train"
            if counts["test"] < test_share * total:
                part = "test"
            elif counts["val"] < val_share * total:
                part = "val"
            counts[part] += len(sources[source])
            parts[part] += sources[source]
    return parts


def chosen(samples: Iterable[Sample], patterns: Sequence[str] | None) -> list[Sample]:
    """Those of which ``DOMAIN/GENERATOR`` matches a pattern; human texts by domain alone."""
    if patterns is None:
        return list(samples)
    domains = [pattern.partition("/")[0] for pattern in patterns]
    return [
        one
        for one in samples
        if any(fnmatchcase(f"{one.domain}/{one.generator}", pattern) for pattern in patterns)
        or (not one.label and any(fnmatchcase(one.domain, domain) for domain in domains))
    ]


def leak_report(parts: dict[str, list[Sample]], cleaning: Cleaning) -> LeakReport:
    """Counts, lengths, and what the test part shares with training."""

    def mean_words(samples: list[Sample], label: int) -> float:
        lengths = [num_words(one.text) for one in samples if one.label == label]
        return sum(lengths) / len(lengths) if lengths else 0.0

    known = {shingle for one in parts["train"] for shingle in _shingles(one.text)}
    of_test = {one.source for one in parts["test"]}
    return LeakReport(
        cleaning=cleaning,
        texts={
            part: (sum(not s.label for s in samples), sum(s.label for s in samples))
            for part, samples in parts.items()
        },
        mean_words={
            part: (mean_words(samples, 0), mean_words(samples, 1))
            for part, samples in parts.items()
        },
        shared_sources=len(of_test & {one.source for one in parts["train"]}),
        overlapping=sum(not known.isdisjoint(_shingles(one.text)) for one in parts["test"]),
    )


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = normalised(text).split()
    last = len(words) - _SHINGLE_WORDS + 1
    return {tuple(words[first : first + _SHINGLE_WORDS]) for first in range(last)}
