"""Cleaning of samples, their split into parts that share no source, and a report of leaks."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np

from lightning_plugins.datamodules.ai_text.text_sample import (
    Sample,
    normalised,
    num_words,
    words_between,
)

PARTS = ("train", "val", "test")
_SHINGLE_WORDS = 8
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Cleaning:
    """Number of samples that were removed before the split.

    Attributes:
        read: Samples before cleaning.
        short: Samples with too few words.
        duplicates: Samples with the same words as another sample of the same label, or its first
            words.
        contradictory: The same for a sample of the other label; both are removed.
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
    kept: list[tuple[int, Sample]] = []
    contradictory = 0
    for places in _repeated(long_enough):
        if len({long_enough[place].label for place in places}) > 1:
            contradictory += len(places)
        else:
            kept.append((min(places), long_enough[min(places)]))
    kept.sort(key=lambda entry: entry[0])
    duplicates = len(long_enough) - contradictory - len(kept)
    short = len(samples) - len(long_enough)
    return [one for _, one in kept], Cleaning(len(samples), short, duplicates, contradictory)


def _repeated(samples: Sequence[Sample]) -> list[list[int]]:
    """Group samples where one text is the beginning of the other, up to case and punctuation.

    In alphabetical order, the texts that begin with a text follow it directly. Texts that share a
    prompt and go on differently are different.
    """
    texts = [f"{normalised(one.text)} " for one in samples]
    groups: list[list[int]] = []
    first = ""
    for place in sorted(range(len(texts)), key=texts.__getitem__):
        if groups and texts[place].startswith(first):
            groups[-1].append(place)
        else:
            groups.append([place])
            first = texts[place]
    return groups


def split_by_source(
    samples: Iterable[Sample], val_share: float, test_share: float, seed: int
) -> dict[str, list[Sample]]:
    """Assign whole sources to the parts at random, stratified by domain and label.

    The sources of each domain that have only human texts, only AI texts, or both are shared out
    separately: to the test part until it has its share of the samples, then to the validation part,
    then to the training part. So every part has every domain and the classes in the same
    proportion. Strata of fewer than three sources are shared out together over all domains, and the
    training part gets the first of them. The split depends on the samples and ``seed`` alone.
    """
    parts: dict[str, list[Sample]] = {part: [] for part in PARTS}
    for name, sources in _strata(samples):
        order = sorted(sources)
        random.Random(f"{seed}:{name}").shuffle(order)
        total = sum(map(len, sources.values()))
        counts = Counter[str]()
        for place, source in enumerate(order):
            part = "train"
            if place == 0 and len(order) < 3:
                pass
            elif counts["test"] < test_share * total:
                part = "test"
            elif counts["val"] < val_share * total:
                part = "val"
            counts[part] += len(sources[source])
            parts[part] += sources[source]
    return parts


def _strata(samples: Iterable[Sample]) -> list[tuple[str, dict[str, list[Sample]]]]:
    """Return samples by source for each stratum, by name."""
    domains: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        domains[sample.domain][sample.source].append(sample)
    strata: dict[str, dict[str, list[Sample]]] = defaultdict(dict)
    for domain in sorted(domains):
        of_domain: dict[str, dict[str, list[Sample]]] = defaultdict(dict)
        for source, texts in domains[domain].items():
            labels = "".join(map(str, sorted({one.label for one in texts})))
            of_domain[labels][source] = texts
        for labels, sources in of_domain.items():
            small = len(sources) < 3
            for source, texts in sources.items():
                # A source may stand in several domains, but its texts stay in one stratum here.
                key = f"{domain}:{source}" if small else source
                strata[f"*:{labels}" if small else f"{domain}:{labels}"][key] = texts
    return sorted(strata.items())


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

    known = _concatenated([_shingles(one.text) for one in parts["train"]])
    known.sort()
    sources = {
        part: {(one.domain, one.source) for one in parts[part]} for part in ("train", "test")
    }
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
        shared_sources=len(sources["test"] & sources["train"]),
        overlapping=sum(_overlaps(one.text, known) for one in parts["test"]),
    )


def _overlaps(text: str, known: np.ndarray) -> bool:
    """Return whether a shingle of ``text`` is in ``known``, which is sorted."""
    shingles = _shingles(text)
    places = np.searchsorted(known, shingles)
    inside = places < len(known)
    return bool((known[places[inside]] == shingles[inside]).any())


def _shingles(text: str) -> np.ndarray:
    """Return a 64-bit hash of each eight consecutive words, uint64 ``(words - 7,)``."""
    words = np.array([hash(word) for word in normalised(text).split()], dtype=np.int64)
    count = len(words) - _SHINGLE_WORDS + 1
    found = np.zeros(max(count, 0), dtype=np.uint64)
    for place in range(_SHINGLE_WORDS if count > 0 else 0):
        found = found * _MULTIPLIER + words[place : place + count].astype(np.uint64)
    return found


def _concatenated(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.uint64)
