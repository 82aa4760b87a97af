"""Foreign values in error messages, shortened."""

import reprlib
from collections.abc import Iterable
from itertools import islice
from typing import Any

_LONGEST = 80
_MOST_NAMES = 20

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _LONGEST
_short.maxlevel = 3


def quoted(value: Any) -> str:
    """Return ``repr(value)`` in at most 80 characters, without building a longer one.

    A value from a file can be long enough to fill the memory or the terminal, and can contain line
    ends and control characters, which ``repr`` escapes.
    """
    try:
        text = repr(value) if isinstance(value, int) and abs(value) < 10**40 else _short.repr(value)
    except (ValueError, RecursionError):  # for example an integer of more than 4,300 digits
        text = f"<{type(value).__name__}>"
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST - 4]}...{text[-1]}"
    return text


def listed(names: Iterable[object]) -> str:
    """Return names separated by commas, without their quotes: at most 20, of 80 characters each."""
    rest = iter(names)
    shown = [quoted(str(name))[1:-1] for name in islice(rest, _MOST_NAMES)]
    more = sum(1 for _ in rest)
    return ", ".join(shown) + (f" and {more} more" if more else "")
