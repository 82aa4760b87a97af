"""Converts columns of any type to numbers and times, and finds missing values."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas

_UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
"""Epoch times above the first number are in nanoseconds, microseconds, milliseconds."""
_NO_VALUES = frozenset(("nan", "null", "none", "na", "n/a", r"\n"))
_OUR_TIME = (6e8, 4.2e9)
"""Seconds of the years 1989 to 2103, in which timestamps of interactions are."""
_BOOLEANS = {"true": 1.0, "false": 0.0}


def is_missing(column: "pandas.Series") -> np.ndarray:
    """Return the mask ``(rows,)`` of values that are NaN, None, or a string of white space."""
    if not _may_have_texts(column):
        return column.isna().to_numpy(dtype=bool)
    if str(column.dtype).startswith("str"):
        return _is_blank(column)
    places, distinct = _factorized(column)
    is_blank = [isinstance(value, str) and not value.strip() for value in distinct]
    return np.array([*is_blank, True], dtype=bool)[places]  # place -1 is NaN or None


def _is_blank(column: "pandas.Series") -> np.ndarray:
    """Return the same for a column of strings, without a Python object per value."""
    import pyarrow
    from pyarrow import compute

    texts = pyarrow.Array.from_pandas(column)
    is_empty = compute.equal(compute.binary_length(texts), 0)
    return (
        compute.or_(is_empty, compute.utf8_is_space(texts))
        .fill_null(True)
        .to_numpy(zero_copy_only=False)
    )


def missing_rows(column: "pandas.Series") -> list[int]:
    """Return the numbers of the rows without a value; the first row after the header is row 1."""
    return [int(row) + 1 for row in np.flatnonzero(is_missing(column))]


def numbers(column: "pandas.Series") -> np.ndarray:
    """Return a column as float64 ``(rows,)``; missing values are NaN, ``True`` is 1.

    ``NULL``, ``nan`` and similar are missing values.

    Raises:
        ValueError: A value is not a finite number; the message gives its row.
    """
    import pandas

    missing = _is_absent(column)
    places = np.arange(len(column))
    if pandas.api.types.is_numeric_dtype(column.dtype):
        distinct = column.to_numpy()
    else:
        places, found = _factorized(column)
        texts = [
            _BOOLEANS.get(value.strip().lower(), value) if isinstance(value, str) else value
            for value in found
        ]
        distinct = np.empty(len(texts) + 1, dtype=object)  # the last one is of place -1
        distinct[:-1] = texts
    converted = pandas.to_numeric(pandas.Series(distinct), errors="coerce")
    values = converted.to_numpy(dtype=np.float64, na_value=np.nan)[places]
    wrong = np.flatnonzero(~np.isfinite(values) & ~missing)
    if len(wrong):
        raise _error(column, int(wrong[0]), "a number")
    return values


def timestamps(column: "pandas.Series") -> np.ndarray:
    """Return times as seconds since 1970 in UTC, float64 ``(rows,)``; missing values are NaN.

    Accepts datetime columns, ISO 8601 strings (without a time zone they are in UTC), and numbers.
    Numbers are seconds, or by their size (median) milliseconds, microseconds or nanoseconds.

    Raises:
        ValueError: A value is neither, or some numbers are in another unit than most; the message
            gives the row.
    """
    import pandas

    missing = _is_absent(column)
    if not pandas.api.types.is_datetime64_any_dtype(column.dtype):
        try:
            found = numbers(column)
        except ValueError as error:
            not_numbers = error
        else:
            return _seconds(column, found)
    times = pandas.to_datetime(column.mask(missing), format="ISO8601", utc=True, errors="coerce")
    wrong = np.flatnonzero(times.isna().to_numpy() & ~missing)
    if len(wrong) > (~missing).sum() / 2 and _are_mostly_numbers(column[~missing]):
        raise not_numbers
    if len(wrong):
        raise _error(column, int(wrong[0]), "an ISO 8601 date such as 2024-05-31, or epoch seconds")
    seconds = (times - pandas.Timestamp(0, tz="UTC")) / pandas.Timedelta(seconds=1)
    return seconds.to_numpy(dtype=np.float64)


def _seconds(column: "pandas.Series", found: np.ndarray) -> np.ndarray:
    """Return epoch times in seconds."""
    units = np.select([np.abs(found) > least for least, _ in _UNITS], [p for _, p in _UNITS], 1.0)
    size = float(np.nanmedian(np.abs(found))) if not np.isnan(found).all() else 0.0
    unit = next((per for least, per in _UNITS if size > least), 1.0)
    own, seconds = np.abs(found / units), np.abs(found / unit)
    low, high = _OUR_TIME
    mixed = (low < own) & (own < high) & ~((low < seconds) & (seconds < high))
    if mixed.any():
        row = int(np.flatnonzero(mixed)[0])
        raise _error(column, row, "a time in the unit of most other rows")
    return found / unit


def _are_mostly_numbers(values: "pandas.Series") -> bool:
    import pandas

    return bool(pandas.to_numeric(values, errors="coerce").notna().mean() > 0.5)


def _is_absent(column: "pandas.Series") -> np.ndarray:
    """Return the mask of missing values where numbers are expected: ``NULL`` is missing too."""
    missing = is_missing(column)
    if not _may_have_texts(column):
        return missing
    places, distinct = _factorized(column)
    is_word = [isinstance(v, str) and v.strip().lower() in _NO_VALUES for v in distinct]
    return missing | np.array([*is_word, False], dtype=bool)[places]


def _may_have_texts(column: "pandas.Series") -> bool:
    return column.dtype == object or str(column.dtype).startswith(("str", "category"))


def _factorized(column: "pandas.Series") -> tuple[np.ndarray, list[Any]]:
    """Return the place ``(rows,)`` of each value among the distinct values, -1 if it is missing.

    Large tables repeat their identifiers, ratings and times. Without this, every row would become a
    Python object several times.
    """
    import pandas

    try:
        places, distinct = pandas.factorize(column)
    except TypeError:  # lists and dictionaries of JSON
        values = column.tolist()
        return np.where(column.isna().to_numpy(dtype=bool), -1, np.arange(len(values))), values
    return places, distinct.tolist()


def _error(column: "pandas.Series", row: int, expected: str) -> ValueError:
    value: Any = column.iloc[row]
    return ValueError(
        f"column {column.name!r}, row {row + 1}: {str(value)[:80]!r}: expected {expected}"
    )
