"""Readers of text data sets: JSON records, tables, Fast-DetectGPT's pairs, and the hub's."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from lightning_plugins.datamodules.ai_text.text_sample import HUMAN, Sample, hash_of, words_between
from lightning_plugins.optional_packages import requires

SUFFIXES = (".jsonl", ".json", ".csv")
HUB = {
    "hc3": ("Hello-SimpleAI/HC3", "all"),
    "raid": ("liamdugan/raid", "raid"),
}
"""Repository and configuration of each data set of the Hugging Face hub, by our name."""
_GENERATORS = ("generator", "model")
_SOURCES = ("source", "source_id")
_TEXTS = ("text", "generation")
# The files that the authors of Fast-DetectGPT published end in .raw_data.json.
_RAW = ".raw_data"


def read_samples(path: Path) -> list[Sample]:
    """Read the samples of a file, or of all files of a folder in the order of their names.

    - ``.jsonl``, or a ``.json`` list: records with ``text`` and ``label`` (0 and 1, or ``human``
      and names of generators, as in SeqXGPT), and optionally ``domain``, ``generator`` and
      ``source``. SCRN's ``labels`` is read as ``label``.
    - ``.csv``: columns of the same names, or RAID's ``generation``, ``model`` and ``source_id``.
    - ``.json`` with ``original`` and ``sampled``, lists of equal length: pairs of Fast-DetectGPT,
      in a file named ``DOMAIN_GENERATOR.json``. The common opening of a pair is removed.

    Without ``source`` or ``source_id``, texts that begin with the same ten words have one source.

    Raises:
        FileNotFoundError: The file or folder does not exist.
        ValueError: A file has none of these formats; the message names the file.
    """
    if not path.exists():
        raise FileNotFoundError(f"path={str(path)!r}: no such file or folder")
    files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix in SUFFIXES)
    if not files:
        raise ValueError(f"path={str(path)!r} has no {', '.join(SUFFIXES)} file")
    return [sample for file in files for sample in _samples_in_file(file)]


def sample_of(record: Mapping[str, Any]) -> Sample | None:
    """Return the sample of a record or row.

    Returns:
        The sample; None for an empty text, and for a text that RAID's authors attacked.

    Raises:
        ValueError: The record has no text or no label.
    """
    text = _first(record, _TEXTS)
    if text is None:
        raise ValueError(f"no text: expected one of {', '.join(_TEXTS)}")
    if not str(text).strip() or record.get("attack", "none") not in ("none", "", None):
        return None
    generator = _first(record, _GENERATORS)
    label = _first(record, ("label", "labels"))
    if label is None:
        label = generator
    if str(label) in ("0", "1"):
        number = int(str(label))
    elif label:
        number, generator = int(str(label).lower() != HUMAN), label
    else:
        raise ValueError("no label: expected 0, 1, 'human', or the name of a generator")
    source = _first(record, _SOURCES)
    return Sample(
        text=str(text),
        label=number,
        source=str(source) if source is not None else _opening(str(text)),
        domain=str(record.get("domain") or ""),
        generator=str(generator or "ai") if number else HUMAN,
    )


def _samples_in_file(file: Path) -> Iterator[Sample]:
    try:
        if file.suffix == ".csv":
            with file.open(encoding="utf-8", newline="") as table:
                yield from _samples_of_records(csv.DictReader(table))
            return
        content = file.read_text("utf-8")
        if file.suffix == ".jsonl":
            # splitlines() also splits at line ends that JSON does not escape, such as U+2028.
            yield from _samples_of_records(json.loads(x) for x in content.split("\n") if x.strip())
            return
        parsed = json.loads(content)
        if isinstance(parsed, dict):
            yield from _pairs(file.stem.removesuffix(_RAW), parsed)
        else:
            yield from _samples_of_records(parsed)
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise ValueError(f"{file}: {type(error).__name__}: {error}") from error


def _samples_of_records(records: Any) -> Iterator[Sample]:
    for record in records:
        if (sample := sample_of(record)) is not None:
            yield sample


def _pairs(name: str, content: Mapping[str, list[str]]) -> Iterator[Sample]:
    domain, _, generator = name.partition("_")
    for place, texts in enumerate(zip(content["original"], content["sampled"], strict=True)):
        both = [text.split() for text in texts]
        shared = sum(1 for _ in takewhile(lambda p: p[0] == p[1], zip(*both, strict=False)))
        pair = f"{name}#{place}"
        for label, text in enumerate(texts):
            yield Sample(
                text=words_between(text, shared, len(both[label])),
                label=label,
                source=f"{domain}:{_opening(texts[0])}",
                pair=pair,
                domain=domain,
                generator=generator if label else HUMAN,
            )


def _opening(text: str) -> str:
    return hash_of(words_between(text, 0, 10))


def _first(record: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((record[name] for name in names if record.get(name) is not None), None)


def hub_samples(name: str) -> list[Sample]:
    """Load ``hc3`` (arXiv 2301.07597, CC BY-SA 4.0) or ``raid`` (arXiv 2405.07940, MIT).

    Raises:
        ImportError: ``datasets`` is not installed.
    """
    with requires("datasets", by=f"path={name!r}", extra="text"):
        import datasets
    rows = datasets.load_dataset(*HUB[name], split="train")
    return hc3_samples(rows) if name == "hc3" else raid_samples(rows)


def hc3_samples(rows: Iterable[Mapping[str, Any]]) -> list[Sample]:
    """Return the answers of HC3; a question is a source, its category is the domain."""
    samples = []
    for row in rows:
        question = f"hc3:{row['question']}"
        for label, answers in enumerate((row["human_answers"], row["chatgpt_answers"])):
            generator = "chatgpt" if label else "human"
            samples += [
                Sample(answer, label, question, domain=row["source"], generator=generator)
                for answer in answers
                if answer.strip()
            ]
    return samples


def raid_samples(rows: Iterable[Mapping[str, Any]]) -> list[Sample]:
    """Return the generations of RAID that were not attacked; ``source_id`` is the source."""
    return [sample for row in rows if (sample := sample_of(row)) is not None]
