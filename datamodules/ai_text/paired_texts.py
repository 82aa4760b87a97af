"""Tables with a human text and an AI text in each row: Fast-DetectGPT, HC3, M4."""

from collections.abc import Callable, Mapping
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_plugins.datamodules.ai_text.text_columns import (
    AI_TEXT,
    HUMAN_TEXT,
    PAIR_ROLES,
    check_texts,
)
from lightning_plugins.datamodules.ai_text.text_sample import (
    HUMAN,
    Sample,
    opening_hash,
    words_between,
)
from lightning_plugins.datamodules.tables import describe_columns, find_columns

if TYPE_CHECKING:
    import pandas

# The files that the authors of Fast-DetectGPT published end in .raw_data.json.
_RAW = ".raw_data"


def is_paired(table: "pandas.DataFrame", columns: Mapping[str, str] | None) -> bool:
    """Return whether a table has a column of human texts and one of AI texts."""
    if {"human_text", "ai_text"} & set(columns or {}):
        return True
    if "text" in (columns or {}):
        return False
    optional = [
        role.__class__(role.name, role.known_as, role.fits) for role in (HUMAN_TEXT, AI_TEXT)
    ]
    return len(find_columns(table, optional)) == 2


def paired_samples(
    table: "pandas.DataFrame",
    file: Path,
    columns: Mapping[str, str] | None,
    report: Callable[[str], None],
) -> list[Sample]:
    """Return two samples per row, or as many as its lists contain.

    The words with which both texts of a row begin are its prompt, and are removed. Both texts are a
    pair, which is cut to one length. The generator and the domain are columns, or the parts of a
    file name ``DOMAIN_GENERATOR.json``; with neither, the generator is ``ai``.

    Raises:
        ValueError: A role is ambiguous, or a column contains lists that are written as text.
    """
    found = find_columns(table, PAIR_ROLES, columns, file.name)
    stem = file.name.partition(".")[0] if _RAW in file.name else file.stem
    named_domain, _, named_generator = stem.partition("_")
    human, ai = (table[found[role]] for role in ("human_text", "ai_text"))
    for column in (human, ai):
        if all(isinstance(value, str) for value in column):
            check_texts(column)
    optional = {role: table[found[role]] for role in ("generator", "domain") if role in found}
    groups = next((table[found[role]] for role in ("group", "prompt") if role in found), None)
    samples: list[Sample] = []
    dropped = empty = 0
    for row in range(len(table)):
        texts = [texts_of(column.iloc[row]) for column in (human, ai)]
        if not any(texts):
            empty += 1
            continue
        dropped += not all(texts)
        is_pair = all(texts) and all(isinstance(column.iloc[row], str) for column in (human, ai))
        shared = _shared_words(texts[0][0], texts[1][0]) if is_pair else 0
        domain = str(optional["domain"].iloc[row]) if "domain" in optional else named_domain
        if groups is None:
            group = opening_hash((texts[0] or texts[1])[0])
        else:
            group = str(groups.iloc[row])
        generator = (
            str(optional["generator"].iloc[row])
            if "generator" in optional
            else named_generator or _writer(found["ai_text"])
        )
        for label, of_label in enumerate(texts):
            samples += [
                Sample(
                    text=words_between(text, shared, None),
                    label=label,
                    source=f"{domain}:{group}",
                    pair=f"{stem}#{row}" if is_pair else "",
                    domain=domain,
                    generator=generator if label else HUMAN,
                )
                for text in of_label
            ]
    report(
        f"{file.name}: {describe_columns(table, found)}; {len(table):,} rows with "
        f"{len(samples):,} texts, {dropped:,} rows without one of them, {empty:,} without both"
    )
    return samples


def texts_of(value: Any) -> list[str]:
    """Return the texts of a cell: a text, a list of texts, or nothing."""
    values = [value] if isinstance(value, str) else value
    if values is None or isinstance(values, float):
        return []
    return [str(text) for text in values if text is not None and str(text).strip()]


def _shared_words(first: str, second: str) -> int:
    pairs = zip(first.split(), second.split(), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _writer(column: str) -> str:
    """Return ``chatgpt`` for a column such as ``chatgpt_answers``."""
    first = column.lower().partition("_")[0]
    return first if first not in ("ai", "machine", "sampled", "generated", "llm") else "ai"
