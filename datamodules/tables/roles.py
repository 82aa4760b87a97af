"""Finds which column of a table has which role, by name and by content."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightning_plugins.datamodules.tables.values import is_missing
from lightning_plugins.inputs import listed, quoted

if TYPE_CHECKING:
    import pandas

_MOST_WORDS_OF_A_NAME = 12
_MOST_SHOWN, _FEW = 20, 1000
_VALUE = re.compile(
    r"-?\d+([.,]\d+)?|\d{4}-\d\d-\d\d([ T].*)?|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    re.IGNORECASE,
)
_NOT_IN_NAMES = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Role:
    """What a column may mean.

    Attributes:
        name: Name of the role, which is also the first column name that is looked for.
        known_as: Other column names for it; upper case and punctuation do not matter.
        fits: Whether the values of a column with such a name can have this role; None accepts every
            column. The role's own name is always accepted.
        required: Whether a table without this role is refused.
        by_content: What the values must be for a column without a known name; the role is taken by
            the only such column. None never takes a column by its content alone.
    """

    name: str
    known_as: tuple[str, ...] = ()
    fits: Callable[["pandas.Series"], bool] | None = None
    required: bool = False
    by_content: Callable[["pandas.Series"], bool] | None = None


def find_columns(
    table: "pandas.DataFrame",
    roles: Sequence[Role],
    columns: Mapping[str, str] | None = None,
    source: str = "the table",
) -> dict[str, str]:
    """Return the column of each role that the table has.

    A column in ``columns`` is taken unchecked. Otherwise a role gets the column of its own name, or
    the one column with another known name, if the values fit. Nothing is guessed: two columns for
    one role, or two roles for one column, are an error that shows ``columns``.

    Args:
        table: The table.
        roles: Roles to look for; earlier roles are served first.
        columns: Column names by role, which the user stated.
        source: Name of the file, for messages.

    Returns:
        Column name by role name, in the order of ``roles``.

    Raises:
        ValueError: A required role has no column, a role or column is ambiguous, or ``columns``
            names a role or column that does not exist.
    """
    if not len(table):
        raise ValueError(f"{source} has no rows")
    given = dict(columns or {})
    known = {role.name: role for role in roles}
    available = [str(name) for name in table.columns]
    for name, column in given.items():
        if name not in known:
            raise ValueError(f"columns has {name!r}: expected some of {', '.join(known)}")
        if column not in available:
            raise ValueError(
                f"columns={{{name!r}: {column!r}}}: {source} has no such column, it has "
                f"{listed(available)}"
            )
    free = [name for name in available if name not in given.values()]
    claims = {role.name: _named(table, role, free) for role in roles if role.name not in given}
    for column in free:
        _refuse_two_roles(column, claims, known, given, source)
    found = dict(given)
    for role in roles:
        if role.name in given:
            continue
        candidates = [name for name in claims[role.name] if name not in found.values()]
        if not candidates and role.required:
            candidates = _by_content(table, role, free, found, source)
        if len(candidates) > 1:
            raise ValueError(f"{source}: {_options(role.name, candidates, 'several columns')}")
        if candidates:
            found[role.name] = candidates[0]
    return {role.name: found[role.name] for role in roles if role.name in found}


def describe_columns(table: "pandas.DataFrame", found: Mapping[str, str]) -> str:
    """Return the roles as ``text ← document, domain ← source (5 values)``, and unused columns."""
    parts = []
    for role, column in found.items():
        values = table[column].head(_FEW).astype(str).nunique()
        if values <= _MOST_SHOWN:  # counting the texts of a large table takes memory
            values = table[column].astype(str).nunique()
        few = (
            f" ({values} value{'s' * (values != 1)})" if values <= _MOST_SHOWN < len(table) else ""
        )
        parts.append(f"{role} ← {listed([column])}{few}")
    unused = [str(name) for name in table.columns if name not in found.values()]
    if unused:
        parts.append(f"not used: {listed(unused)}")
    return ", ".join(parts)


def _named(table: "pandas.DataFrame", role: Role, free: Sequence[str]) -> list[str]:
    """Return the column of the role's own name, or else those whose name and values fit."""
    filled = [name for name in free if not is_missing(table[name]).all()]
    own = [name for name in filled if _plain(name) == _plain(role.name)]
    known = [name for name in filled if _plain(name) in map(_plain, role.known_as)]
    return own or [name for name in known if role.fits is None or role.fits(table[name])]


def _refuse_two_roles(
    column: str,
    claims: Mapping[str, list[str]],
    known: Mapping[str, Role],
    given: Mapping[str, str],
    source: str,
) -> None:
    plain = _plain(column)
    if any(plain == _plain(name) for name in known):
        names = [name for name in claims if _plain(name) == plain]
    else:
        names = [name for name in claims if plain in map(_plain, known[name].known_as)]
    if len(names) < 2 or any(plain in map(_plain, known[name].known_as) for name in given):
        return
    if sum(column in claims[name] for name in names) != 1:
        options = " or ".join(f"columns={{{name!r}: {quoted(column)}}}" for name in names)
        raise ValueError(
            f"{source}: column {quoted(column)} can be the {' or the '.join(names)}: expected "
            f"{options}"
        )


def _by_content(
    table: "pandas.DataFrame",
    role: Role,
    free: Sequence[str],
    found: Mapping[str, str],
    source: str,
) -> list[str]:
    unused = [name for name in free if name not in found.values()]
    test = role.by_content or role.fits
    fitting = [
        name
        for name in unused
        if not is_missing(table[name]).all() and (not test or test(table[name]))
    ]
    if role.by_content and len(fitting) == 1 and not _is_value(fitting[0]):
        return fitting
    without_header = [name for name in unused if _is_value(name)]
    if without_header and not found:
        raise ValueError(
            f"{source}: the first row has to contain the names of the columns, and "
            f"{listed(without_header[:1])} looks like a value: add a row of names"
        )
    raise ValueError(f"{source}: {_options(role.name, fitting or unused, 'no column is named as')}")


def _is_value(name: str) -> bool:
    """Return whether the name of a column is rather a value: a number, a date, a UUID, a text."""
    return len(name.split()) > _MOST_WORDS_OF_A_NAME or _VALUE.fullmatch(name.strip()) is not None


def _options(role: str, candidates: Sequence[str], why: str) -> str:
    options = " or ".join(f"columns={{{role!r}: {quoted(name)}}}" for name in candidates[:5])
    return f"{why} the {role}: expected {options or 'a column for it'}"


def _plain(name: str) -> str:
    return _NOT_IN_NAMES.sub("", str(name).casefold())
