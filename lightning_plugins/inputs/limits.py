"""Upper limits on the size of inputs, each of which an environment variable can raise.

A small file can describe a large object: a PNG of 20 kB can contain 170 million pixels. Every
reader of this package therefore checks the size of the object before it allocates memory. An
environment variable, unlike an argument, also reaches worker processes.
"""

import os
from typing import NamedTuple

_PREFIX = "LIGHTNING_PLUGINS_MAX_"


class Limit(NamedTuple):
    """An upper limit.

    Attributes:
        default: Value if the environment variable is not set.
        meaning: What is counted, for the error message and the documentation.
    """

    default: int
    meaning: str


LIMITS = {
    "image_pixels": Limit(25_000_000, "pixels of an image"),
    "table_rows": Limit(2_000_000, "rows of a table; at least one row per byte of its file"),
    "cell_characters": Limit(4_000_000, "characters of one cell of a table"),
    "table_bytes": Limit(
        4 << 30,
        "bytes of the cells of a table, decompressed; at most 512 MiB, or 200 times its file",
    ),
    "array_bytes": Limit(2 << 30, "bytes of the arrays of one file"),
    "nesting": Limit(64, "nested levels of a JSON or YAML text"),
    "yaml_nodes": Limit(200_000, "values of a YAML text, with every anchor expanded"),
    "download_bytes": Limit(64 << 30, "bytes of a downloaded checkpoint"),
    "reply_bytes": Limit(4 << 20, "bytes of a server's reply, decompressed"),
}
"""Name -> limit. The variable of each is ``LIGHTNING_PLUGINS_MAX_`` and its name in capitals."""


class LimitError(ValueError):
    """An input exceeds a limit."""

    def __init__(self, name: str, amount: int, what: str, allowed: int | None = None) -> None:
        most = limit(name) if allowed is None else allowed
        counted = LIMITS[name].meaning.partition(";")[0]
        super().__init__(
            f"{what}: {amount:,} {counted}, allowed are {most:,}; if "
            f"you trust it, set the environment variable {variable(name)}"
        )


def variable(name: str) -> str:
    """Return the environment variable of a limit."""
    return _PREFIX + name.upper()


def is_raised(name: str) -> bool:
    """Return whether the environment variable of a limit is set."""
    return variable(name) in os.environ


def limit(name: str) -> int:
    """Return the value of a limit of :data:`LIMITS`.

    Raises:
        ValueError: The environment variable is not a positive whole number.
    """
    default = LIMITS[name].default
    text = os.environ.get(variable(name))
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 19 and int(text)):
        raise ValueError(f"{variable(name)}={text[:80]!r}: expected a positive whole number")
    return int(text)


def require(name: str, amount: int, what: str) -> None:
    """Check an amount against a limit.

    Args:
        name: Name of the limit.
        amount: Amount that the input needs.
        what: The input, for example a path, at the start of the message.

    Raises:
        LimitError: The amount exceeds the limit.
    """
    if amount > limit(name):
        raise LimitError(name, amount, what)
