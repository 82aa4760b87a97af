"""Labels of texts in the forms that data sets use: numbers, booleans, names of generators."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning_plugins.datamodules.ai_text.text_sample import HUMAN
from lightning_plugins.datamodules.tables import is_missing

if TYPE_CHECKING:
    import pandas

# Names are compared without upper case and punctuation.
_HUMAN_NAMES = frozenset((
    "human", "humans", "real", "person", "student", "original", "human written", "written by human",
    "human authored", "human generated", "human text", "human answer",
))  # fmt: skip
_AI_NAMES = frozenset((
    "ai", "machine", "fake", "generated", "llm", "model", "bot", "machine generated",
    "ai generated", "llm generated", "machine written", "ai written", "machine text", "ai text",
    "written by ai",
))  # fmt: skip
_UNCLEAR_WORDS = frozenset((
    "human", "humans", "not", "non", "mixed", "mix", "hybrid", "both", "partly", "partially",
))  # fmt: skip
_NO_LABELS = frozenset(("nan", "none", "null", "na", "n/a", "unknown", "?", "-"))
_NUMBERS = {
    **dict.fromkeys(("0", "false", "no", "f", "n"), 0),
    **dict.fromkeys(("1", "true", "yes", "t", "y"), 1),
}
HUMAN_COLUMNS = ("human", "ishuman", "real", "isreal", "humanwritten", "ishumanwritten")
"""Names of columns that are true for human texts."""
_PUNCTUATION = re.compile(r"[\W_]+")
_SHOWN = 6


class Labels(NamedTuple):
    """The labels of a table.

    Attributes:
        numbers: 0 human, 1 AI, or None where the label is missing, by row.
        generators: Names of generators that the labels contain, or None, by row.
        meaning: What stands for what, such as ``0/1 = human/AI``.
    """

    numbers: list[int | None]
    generators: list[str | None]
    meaning: str


def read_labels(
    column: "pandas.Series", labels: Mapping[str, str] | None = None, names: bool = False
) -> Labels:
    """Return the labels in a column.

    Accepts 0 and 1 in any type or notation (``1.0``, ``True``, ``"yes"``), where 1 is AI unless the
    column is named as the human class (``is_human``); ``human``, ``real`` or similar, and any other
    names, which are those of generators. Values such as ``unknown`` and ``nan`` are missing labels.
    Names such as ``mixed``, ``not AI`` or ``human, edited`` are refused.

    Args:
        column: The column.
        labels: ``human``, ``ai`` or ``drop`` by value, such as ``{"1": "human", "0": "ai"}``;
            rows with ``drop`` have no label. None for the meanings above.
        names: Accept names of generators without ``human``, as in a file of one class.

    Raises:
        ValueError: The values are none of these; the message shows ``labels``.
    """
    missing = is_missing(column)
    values = [None if gone else plain(value) for value, gone in zip(column, missing, strict=True)]
    stated = {plain(value) for value in labels or ()}
    unlabelled = sorted({value for value in values if value in _NO_LABELS - stated})
    values = [None if value in unlabelled else value for value in values]
    distinct = sorted({value for value in values if value is not None})
    without = "".join(f", {value} = no label" for value in unlabelled)
    if labels is not None:
        return _stated(column, values, distinct, labels)
    if distinct and all(value in _NUMBERS for value in distinct):
        inverted = plain_name(column.name) in HUMAN_COLUMNS
        meaning = "/".join(distinct) + " = "
        numbers = {value: _NUMBERS[value] ^ inverted for value in distinct}
        meaning += "/".join("AI" if numbers[value] else "human" for value in distinct)
        found = [None if value is None else numbers[value] for value in values]
        return Labels(found, [None] * len(values), meaning + without)
    human = [value for value in distinct if is_human_name(value)]
    known = names or human or any(map(is_ai_name, distinct))
    if not known or any(_is_number(value) or _is_unclear(value) for value in distinct):
        shown = ", ".join(map(repr, distinct[:_SHOWN]))
        example = {
            value: HUMAN if is_human_name(value) else "drop" if _is_unclear(value) else "ai"
            for value in distinct[:_SHOWN]
        }
        if len(set(example.values())) == 1:  # nothing is known about the values
            example = dict(zip(distinct, (HUMAN, "ai", *["drop"] * _SHOWN), strict=False))
        raise ValueError(
            f"column {column.name!r} has the values {shown}: expected 0 and 1, true and false, or "
            f"human and names of generators; otherwise set labels, such as {example}"
        )
    return Labels(
        [None if value is None else int(value not in human) for value in values],
        [
            None if value is None or value in human or is_ai_name(value) else str(given).strip()
            for given, value in zip(column, values, strict=True)
        ],
        f"{'/'.join(human) or 'none'} = human, the others = AI{without}",
    )


def is_label(column: "pandas.Series") -> bool:
    """Return whether a column can be a label: few values, none of them long."""
    distinct = {plain(value) for value in column[~is_missing(column)].unique()[:200]}
    return len(distinct) <= 100 and all(len(value) <= 60 for value in distinct)


def is_two_classes(column: "pandas.Series") -> bool:
    """Return whether the values of a column are certainly labels."""
    try:
        labels = read_labels(column)
    except ValueError:
        return False
    return {0, 1} <= set(labels.numbers)


def is_ai_name(name: Any) -> bool:
    """Return whether a name stands for AI in general."""
    return _words(name) in _AI_NAMES


def is_human_name(name: Any) -> bool:
    """Return whether a name stands for human writers."""
    return _words(name) in _HUMAN_NAMES


def has_human_word(name: Any) -> bool:
    """Return whether a word of a name stands for human writers, as in ``cmv_human``."""
    return bool(_HUMAN_NAMES & set(_words(name).split()))


def _is_unclear(name: str) -> bool:
    """Return whether a label names several classes, or a negation."""
    words = _words(name)
    return words not in _HUMAN_NAMES and bool(_UNCLEAR_WORDS & set(words.split()))


def _words(name: Any) -> str:
    return _PUNCTUATION.sub(" ", plain(name)).strip()


def plain(value: Any) -> str:
    """Return a label in one notation: lower case, whole numbers without a decimal point."""
    text = str(value).strip().lower()
    if _is_number(text) and float(text) == int(float(text)):
        return str(int(float(text)))
    return text


def plain_name(name: object) -> str:
    """Return a column name without upper case and punctuation."""
    return "".join(letter for letter in str(name).casefold() if letter.isalnum())


def _stated(
    column: "pandas.Series",
    values: list[str | None],
    distinct: list[str],
    labels: Mapping[str, str],
) -> Labels:
    kinds = {plain(value): str(kind).lower() for value, kind in labels.items()}
    wrong = [kind for kind in kinds.values() if kind not in (HUMAN, "ai", "drop")]
    unknown = [value for value in distinct if value not in kinds]
    if wrong or unknown:
        raise ValueError(
            f"labels={dict(labels)}: expected 'human', 'ai' or 'drop' for each value of column "
            f"{column.name!r}: {', '.join(map(repr, distinct[:_SHOWN]))}"
        )
    numbers = {"ai": 1, HUMAN: 0}
    found = [None if value is None else numbers.get(kinds[value]) for value in values]
    meaning = ", ".join(f"{value} = {kinds[value]}" for value in distinct)
    return Labels(found, [None] * len(values), meaning)


def _is_number(text: str) -> bool:
    try:
        return float(text) - float(text) == 0  # not infinite, not NaN
    except ValueError:
        return False
