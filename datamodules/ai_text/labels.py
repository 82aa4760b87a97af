"""Labels of texts in the forms that data sets use: numbers, booleans, names of generators."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning_plugins.datamodules.ai_text.text_sample import HUMAN
from lightning_plugins.datamodules.tables import is_missing

if TYPE_CHECKING:
    import pandas

HUMAN_NAMES = frozenset(
    ("human", "humans", "real", "person", "student", "human-written", "human_written", "original")
)
_AI_NAMES = frozenset(
    ("ai", "machine", "fake", "generated", "llm", "model", "machine-generated", "ai-generated")
)
_NUMBERS = {"0": 0, "false": 0, "no": 0, "1": 1, "true": 1, "yes": 1}
_HUMAN_COLUMNS = ("human", "ishuman", "real", "isreal")
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
    names, which are those of generators.

    Args:
        column: The column.
        labels: ``human`` or ``ai`` by value, such as ``{"1": "human", "0": "ai"}``; None for the
            meanings above.
        names: Accept names of generators without ``human``, as in a file of one class.

    Raises:
        ValueError: The values are none of these; the message shows ``labels``.
    """
    missing = is_missing(column)
    values = [None if gone else plain(value) for value, gone in zip(column, missing, strict=True)]
    distinct = sorted({value for value in values if value is not None})
    if labels is not None:
        return _stated(column, values, distinct, labels)
    if distinct and all(value in _NUMBERS for value in distinct):
        inverted = plain_name(column.name) in _HUMAN_COLUMNS
        meaning = "/".join(distinct) + " = "
        numbers = {value: _NUMBERS[value] ^ inverted for value in distinct}
        meaning += "/".join("AI" if numbers[value] else "human" for value in distinct)
        found = [None if value is None else numbers[value] for value in values]
        return Labels(found, [None] * len(values), meaning)
    human = [value for value in distinct if value in HUMAN_NAMES]
    known = names or human or any(value in _AI_NAMES for value in distinct)
    if not known or any(_is_number(value) for value in distinct):
        shown = ", ".join(map(repr, distinct[:_SHOWN]))
        example = dict(zip(distinct, (HUMAN, "ai"), strict=False))
        raise ValueError(
            f"column {column.name!r} has the values {shown}: expected 0 and 1, true and false, or "
            f"human and names of generators; otherwise set labels, such as {example}"
        )
    return Labels(
        [None if value is None else int(value not in HUMAN_NAMES) for value in values],
        [
            str(given).strip()
            if value is not None and value not in HUMAN_NAMES | _AI_NAMES
            else None
            for given, value in zip(column, values, strict=True)
        ],
        f"{'/'.join(human) or 'none'} = human, the others = AI",
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


def is_ai_name(name: str) -> bool:
    """Return whether a name stands for AI in general."""
    return plain(name) in _AI_NAMES


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
    wrong = [kind for kind in kinds.values() if kind not in (HUMAN, "ai")]
    unknown = [value for value in distinct if value not in kinds]
    if wrong or unknown:
        raise ValueError(
            f"labels={dict(labels)}: expected 'human' or 'ai' for each value of column "
            f"{column.name!r}: {', '.join(map(repr, distinct[:_SHOWN]))}"
        )
    found = [None if value is None else int(kinds[value] == "ai") for value in values]
    meaning = ", ".join(f"{value} = {kinds[value]}" for value in distinct)
    return Labels(found, [None] * len(values), meaning)


def _is_number(text: str) -> bool:
    try:
        return float(text) - float(text) == 0  # not infinite, not NaN
    except ValueError:
        return False
