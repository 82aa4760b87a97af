"""What is wrong in a file is told with its name."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CONTENT_ERRORS = (
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError),
    csv.Error,
)


@contextmanager
def file_error_context(path: Path) -> Iterator[None]:
    """Make an error in what ``path`` holds a ``ValueError`` that names it.

    Raises:
        ValueError: any such error.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: see its byte {error.start}") from error
    except _CONTENT_ERRORS as error:
        if path.name in str(error):
            raise
        raise ValueError(f"{path} cannot be read: {error}") from error
