"""The roles that columns of a table of texts may have."""

import re
from typing import TYPE_CHECKING

import numpy as np

from lightning_plugins.datamodules.ai_text.labels import (
    HUMAN_COLUMNS,
    is_human_name,
    is_label,
    plain,
    plain_name,
)
from lightning_plugins.datamodules.tables import Role, is_missing, missing_rows

if TYPE_CHECKING:
    import pandas

_WRITTEN_LIST = re.compile(r"""\s*\[\s*(?:(['"]).*\1\s*,?\s*)?\]\s*""", re.DOTALL)
_MOST_DOMAINS = 30
_LEAST_ROWS_OF_A_DOMAIN = 8
_MOST_ROWS_OF_A_GROUP = 20


def is_text(column: "pandas.Series") -> bool:
    """Return whether most values are strings that are not numbers, or lists of strings."""
    values = column.iloc[np.flatnonzero(~is_missing(column))[:200]]
    return (
        not values.empty
        and sum(
            isinstance(value, str) and not plain(value).lstrip("-").isdecimal() for value in values
        )
        > len(values) / 2
    )


def is_prose(column: "pandas.Series") -> bool:
    """Return whether the values are texts of several words, and mostly different."""
    values = [value for value in column.head(500) if isinstance(value, str)]
    words = sum(len(value.split()) for value in values)
    return bool(values) and words >= 8 * len(values) and len(set(values)) > len(values) / 2


def is_domain(column: "pandas.Series") -> bool:
    """Return whether a few values stand in many rows each, and none of them is ``human``."""
    values = _values(column)
    distinct = len(set(values))
    stand_often = len(values) >= _LEAST_ROWS_OF_A_DOMAIN * distinct or distinct == 1
    return distinct <= _MOST_DOMAINS and stand_often and not _names_human(column)


def is_group(column: "pandas.Series") -> bool:
    """Return whether each value stands in a few rows."""
    values = _values(column)
    distinct = len(set(values))
    stand_rarely = len(values) <= _MOST_ROWS_OF_A_GROUP * distinct
    one_domain = distinct == 1 and plain_name(column.name) in ("source", "src")
    return stand_rarely and not one_domain and not _names_human(column)


def is_generator(column: "pandas.Series") -> bool:
    """Return whether the values are names, one of them ``human``."""
    return is_label(column) and _names_human(column)


def _names_human(column: "pandas.Series") -> bool:
    return any(map(is_human_name, set(_values(column))))


def _values(column: "pandas.Series") -> list[str]:
    return [str(value) for value in column[~is_missing(column)]]


def is_list_or_text(column: "pandas.Series") -> bool:
    """Return whether the values are texts, or lists of texts as in HC3."""
    missing = set(missing_rows(column))
    values = [value for row, value in enumerate(column.head(200), 1) if row not in missing]
    return (
        bool(values)
        and all(not isinstance(v, (int, float)) for v in values)
        and (is_text(column) or not all(isinstance(value, str) for value in values))
    )


def check_texts(column: "pandas.Series") -> None:
    """Check that a column contains texts.

    Raises:
        ValueError: A value is a list or a dictionary, or all values are lists written as text.
    """
    filled = ~is_missing(column)
    for row, value in enumerate(column if column.dtype == object else (), 1):
        if filled[row - 1] and not isinstance(value, str | int | float | bool):
            raise ValueError(
                f"column {column.name!r}, row {row} is a {type(value).__name__}: expected text"
            )
    values = (value for value, has_text in zip(column, filled, strict=True) if has_text)
    if filled.any() and all(isinstance(v, str) and _WRITTEN_LIST.fullmatch(v) for v in values):
        raise ValueError(
            f"column {column.name!r} has lists that are written as text, such as "
            f"{column[filled].iloc[0][:40]!r}: save the table as JSON lines or Parquet, with lists"
        )


TEXT = Role(
    "text",
    (
        "generation",
        "document",
        "content",
        "body",
        "essay",
        "article",
        "passage",
        "answer",
        "response",
        "completion",
        "output",
        "abstract",
        "sentence",
    ),
    is_text,
    required=True,
    by_content=is_prose,
)
ID = Role("id", ("uid", "uuid", "textid", "docid", "documentid", "rowid", "index"))
LABEL = Role(
    "label",
    (
        "labels",
        "class",
        "target",
        "isai",
        "ai",
        "generated",
        "isgenerated",
        "machine",
        "ismachine",
        "fake",
        "isfake",
        *HUMAN_COLUMNS,
    ),
    is_label,
)
GENERATOR = Role("generator", ("model", "llm", "modelname", "generatedby"), is_label)
WRITER = Role("writer", ("source", "src", "author"), is_generator)
"""A column such as ``source`` whose values are generators and ``human``."""
DOMAIN = Role(
    "domain", ("source", "src", "genre", "topic", "category", "dataset", "subset"), is_domain
)
GROUP = Role(
    "group", ("source", "src", "sourceid", "groupid", "pairid", "promptid", "questionid"), is_group
)
PROMPT = Role("prompt", ("question", "instruction", "title"), is_group)
ATTACK = Role("attack")
ROLES = (TEXT, ID, LABEL, GENERATOR, WRITER, DOMAIN, GROUP, PROMPT, ATTACK)
"""Roles of a table with one text per row."""

HUMAN_TEXT = Role(
    "human_text",
    ("human", "original", "humananswers", "humananswer", "humanresponse", "humanwritten"),
    is_list_or_text,
)
AI_TEXT = Role(
    "ai_text",
    (
        "ai",
        "machinetext",
        "sampled",
        "chatgptanswers",
        "chatgptanswer",
        "generatedtext",
        "machine",
        "aianswers",
        "airesponse",
        "llmtext",
    ),
    is_list_or_text,
)
PAIR_ROLES = (HUMAN_TEXT, AI_TEXT, ID, GENERATOR, DOMAIN, GROUP, PROMPT)
"""Roles of a table with a human text and an AI text per row."""
