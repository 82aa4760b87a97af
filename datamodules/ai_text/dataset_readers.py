"""Samples from files: records a line, tables, and pairs of original and sampled texts."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from lightning_plugins.datamodules.ai_text.text_sample import HUMAN, Sample, hash_of, words_between

SUFFIXES = (".jsonl", ".json", ".csv")
_GENERATORS = ("generator", "model")
_SOURCES = ("source", "source_id")
_TEXTS = ("text", "generation")
# Names of the authors' own files of Fast-DetectGPT, before the suffix.
_RAW = ".raw_data"


def read_samples(path: Path) -> list[Sample]:
    """Samples of a file, or of all files of a folder by name.

    - ``.jsonl``, or a ``.json`` list: records with ``text`` and ``label`` (0 and 1, or ``human``
      and names of generators, as in SeqXGPT), perhaps ``domain``, ``generator`` and ``source``.
      SCRN's own ``labels`` is understood.
    - ``.csv``: the same as columns; RAID's ``generation``, ``model`` and ``source_id`` too.
    - ``.json`` with ``original`` and ``sampled``, lists of equal length: pairs of Fast-DetectGPT,
      named ``DOMAIN_GENERATOR.json``. The opening that both texts of a pair have is left out.

    Without ``source`` or ``source_id``, texts that begin with the same ten words are of one source.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: a file in no such form; the message names it.
    """
    if not path.exists():
        raise FileNotFoundError(f"path={str(path)!r}: no such file or folder")
    files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix in SUFFIXES)
    if not files:
        raise ValueError(f"path={str(path)!r} has no {', '.join(SUFFIXES)} file")
    return [sample for file in files for sample in _of_file(file)]


def sample_of(record: Mapping[str, Any]) -> Sample | None:
    """A sample of a record or row; None for one without text, or attacked as some of RAID's.

    Raises:
        ValueError: no text or label in it.
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


def _of_file(file: Path) -> Iterator[Sample]:
    try:
        if file.suffix == ".csv":
            with file.open(encoding="utf-8", newline="") as table:
                yield from _of_records(csv.DictReader(table))
            return
        content = file.read_text("utf-8")
        if file.suffix == ".jsonl":
            # Not splitlines(): a text may hold other line ends, which JSON does not escape.
            yield from _of_records(json.loads(x) for x in content.split("\n") if x.strip())
            return
        parsed = json.loads(content)
        if isinstance(parsed, dict):
            yield from _pairs(file.stem.removesuffix(_RAW), parsed)
        else:
            yield from _of_records(parsed)
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise ValueError(f"{file}: {type(error).__name__}: {error}") from error


def _of_records(records: Any) -> Iterator[Sample]:
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


HUB = {
    "hc3": ("Hello-SimpleAI/HC3", "all"),
    "raid": ("liamdugan/raid", "raid"),
}


def hub_samples(name: str) -> list[Sample]:
    """``hc3`` (arXiv 2301.07597, CC BY-SA 4.0) or ``raid`` (arXiv 2405.07940, MIT) from the hub.

    Raises:
        ImportError: without ``datasets``.
    """
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            f'path={name!r} needs datasets: pip install "lightning-plugins[text]"'
        ) from error
    rows = datasets.load_dataset(*HUB[name], split="train")
    return hc3_samples(rows) if name == "hc3" else raid_samples(rows)


def hc3_samples(rows: Iterable[Mapping[str, Any]]) -> list[Sample]:
    """Answers to questions; a question is a source, its kind the domain."""
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
    """Generations that RAID did not attack; what a person wrote is the source."""
    return [sample for row in rows if (sample := sample_of(row)) is not None]
