"""The names that are most similar to a misspelt one."""

import difflib
from collections.abc import Iterable


def nearest(name: str, candidates: Iterable[str], prefix: str = "") -> str:
    """Return ``; did you mean A or B?`` with the most similar names, or an empty text.

    Names that differ in one letter, or by two exchanged letters, come first.

    Args:
        name: The misspelt name.
        candidates: The names that are possible in its place.
        prefix: What precedes each name in the message.
    """
    known = sorted({candidate for candidate in candidates if candidate != name})
    by_distance = {other: edit_distance(name.lower(), other.lower()) for other in known}
    least = min(by_distance.values(), default=0)
    if known and least <= max(1, len(name) // 4):
        near = [other for other, distance in by_distance.items() if distance == least]
        near.sort(key=lambda other: -difflib.SequenceMatcher(None, name, other).ratio())
    else:
        near = difflib.get_close_matches(name, known, 2, 0.6)
    return f"; did you mean {' or '.join(prefix + other for other in near[:2])}?" if near else ""


def edit_distance(first: str, second: str) -> int:
    """Return the number of letters to insert, drop, replace or exchange with a neighbour."""
    rows = [list(range(len(second) + 1))]
    for i, a in enumerate(first, 1):
        row = [i]
        for j, b in enumerate(second, 1):
            best = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (a != b))
            if i > 1 and j > 1 and a == second[j - 2] and b == first[i - 2]:
                best = min(best, rows[-2][j - 2] + 1)
            row.append(best)
        rows.append(row)
    return rows[-1][-1]


def check_options(name: str, options: Iterable[str], known: object) -> None:
    """Refuse misspelt options of an object that ignores unknown ones, as transformers does.

    An option is misspelt if the object has no attribute of that name, but one that differs in at
    most two letters.

    Args:
        name: The argument that contains the options.
        options: The names that are given.
        known: An object with one attribute for each option.

    Raises:
        ValueError: An option is misspelt; the message contains the most similar attribute.
    """
    attributes = [attribute for attribute in dir(known) if not attribute.startswith("_")]
    for option in options:
        if hasattr(known, option):
            continue
        if any(edit_distance(option, attribute) <= 2 for attribute in attributes):
            raise ValueError(
                f"{name}: {type(known).__name__} has no option {option!r}"
                + nearest(option, attributes)
            )
