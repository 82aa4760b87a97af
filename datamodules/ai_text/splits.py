"""Cleaning of samples, their split into parts that share no source, and a report of leaks."""

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
    """Number of samples that were removed before the split.

    Attributes:
        read: Samples before cleaning.
        short: Samples with too few words.
        duplicates: Samples that begin with the same words as another sample of the same label.
        contradictory: Samples that begin with the same words as a sample of the other label.
    """

    read: int = 0
    short: int = 0
    duplicates: int = 0
    contradictory: int = 0


@dataclass(frozen=True)
class LeakReport:
    """Overlap between the test part and the training part.

    Attributes:
        cleaning: Samples that were removed.
        texts: Number of (human, AI) texts by part.
        mean_words: Mean number of words of (human, AI) texts by part.
        shared_sources: Sources of the test part that are in the training part; 0 by construction.
        overlapping: Test texts that share eight consecutive words with a training text.
    """

    cleaning: Cleaning
    texts: dict[str, tuple[int, int]] = field(default_factory=dict)
    mean_words: dict[str, tuple[float, float]] = field(default_factory=dict)
    shared_sources: int = 0
    overlapping: int = 0

    def __str__(self) -> str:
        """Return the report in three lines."""
        parts = "; ".join(
            f"{part}: {human} human and {ai} AI texts of {words[0]:.0f} and {words[1]:.0f} words"
            for (part, (human, ai)), words in zip(
                self.texts.items(), self.mean_words.values(), strict=True
            )
        )
        cleaning = self.cleaning
        return (
            f"{parts}\n"
            f"removed from {cleaning.read} texts: {cleaning.short} too short, "
            f"{cleaning.duplicates} duplicates, {cleaning.contradictory} with both labels\n"
            f"leaks: {self.shared_sources} test sources in training; {self.overlapping} test "
            f"texts share {_SHINGLE_WORDS} consecutive words with training"
        )


def cleaned(
    samples: Sequence[Sample], min_words: int, max_words: int, skip_words: int
) -> tuple[list[Sample], Cleaning]:
    """Cut the texts of each pair to equal length and remove duplicates.

    The texts of a pair are cut to the number of words of the shorter one, at most ``max_words``; a
    text without a pair is cut to ``max_words``. Texts of fewer than ``min_words`` words are
    removed, together with the other text of their pair.
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
    """Assign whole sources to the parts at random.

    Within each domain, sources are assigned to the test part until it has its share of the
    samples, then to the validation part, then to the training part; so every part has every
    domain. The split depends on the samples and ``seed`` alone.
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


def matching_samples(samples: Iterable[Sample], patterns: Sequence[str] | None) -> list[Sample]:
    """Return the samples whose ``DOMAIN/GENERATOR`` matches; human texts match by domain alone."""
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
    """Return the counts and lengths of the parts, and the overlap of test and training."""

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
