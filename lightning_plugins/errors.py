"""User errors in one line."""

import errno
import re
from argparse import ArgumentError
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pickle import UnpicklingError

# Lines of jsonargparse's messages about the types that it tried, without the actual error.
_NOISE = re.compile(
    r"Does not validate against any of the Union subtypes|Subtypes: .*|Errors:|"
    r"Expected a <class 'NoneType'>.*|Expected a path but .*|Given value type: .*|"
    r"Not a valid subclass of .*|Subclass types expect one of:|a class path \(str\)|"
    r"a dict with(out)? .*|Expected a list"
)
_KEY = re.compile(r'Parser key "([^"]+)":')
_GIVEN = re.compile(r"Given value: (.*)")
_CLASS = re.compile(r"Problem with given class_path '([^']+)':")


_OF_ENVIRONMENT = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS),
    *(errno.EACCES, errno.EPERM, errno.EIO),
)
_LONGEST = 300


class UserError(Exception):
    """An error that the command line prints in one line with exit code 2."""


@contextmanager
def user_errors_in_one_line(
    explain: Callable[[Exception], str | None] | None = None,
) -> Iterator[None]:
    """Convert errors that a user can correct into a :class:`UserError` of at most 300 characters.

    Args:
        explain: Called with the error. Returns its message, or None to raise it unchanged, for
            example in a run that has already trained, where the traceback is useful. By default,
            the error itself is the message if its class is that of a user error.
    """
    try:
        yield
    except Exception as error:
        if explain is not None:
            text = explain(error)
        else:
            text = one_line(error) if is_user_error(error) else None
        if text is None:
            raise
        raise UserError(shortened(_printable(text))) from error


def _printable(text: str) -> str:
    """Escape control characters, which a terminal would obey, as ``repr`` does."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shortened(text: str) -> str:
    """Return ``text`` in at most 300 characters; the end stays, which contains the remedy."""
    if len(text) <= _LONGEST:
        return text
    note = " [...; --debug shows all] "
    end = 110
    return text[: _LONGEST - len(note) - end] + note + text[-end:]


def one_line(error: BaseException) -> str:
    """Return the message of ``error``, or of its innermost cause, in one line."""
    if isinstance(error, UnpicklingError):  # torch's own message recommends weights_only=False
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = named[1] if named else "something"
        return f"the checkpoint was not loaded: it contains {what}, not only tensors and plain data"
    innermost = _innermost(error)
    if "EADDRINUSE" in str(innermost) and (port := re.search(r"port: (\d+)", str(innermost))):
        return f"port {port[1]} is in use by another program: set MASTER_PORT to a free port"
    if isinstance(innermost, OSError) and innermost.strerror:
        where = f": {innermost.filename}" if innermost.filename else ""
        return f"{innermost.strerror}{where}"
    text = _parsed(str(error)) or " ".join(str(innermost).split()) or type(innermost).__name__
    return re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)


def _innermost(error: BaseException) -> BaseException:
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error


def is_of_environment(error: BaseException) -> bool:
    """Return whether a full disk, a quota or missing permissions caused an error."""
    innermost = _innermost(error)
    return isinstance(innermost, OSError) and innermost.errno in _OF_ENVIRONMENT


def _parsed(message: str) -> str:
    """Convert the parser's tree of attempts to ``key: error``; other messages stay unchanged."""
    keys, messages, given = [], [], ""
    lines = message.splitlines()
    while lines:
        line = lines.pop(0)
        text = line.strip().removeprefix("- ")
        if key := _KEY.fullmatch(text):
            keys.append(key[1])
        elif value := _GIVEN.fullmatch(text):
            given = value[1]
        elif _CLASS.fullmatch(text):
            # The class was found, so its own error is relevant and the types tried later are not.
            messages, lines = [text], _below(line, lines)
        elif text and not _NOISE.fullmatch(text):
            messages.append(text)
    incomplete = messages and messages[-1].startswith("Expected a <class")
    if keys and incomplete and "Got value" not in messages[-1]:
        messages.append(f"got {given}")
    if len(keys) > 1:  # the key identifies the place, so the class is redundant
        messages = [text for text in messages if not _CLASS.fullmatch(text)]
    where = f"{'.'.join(keys)}: " if keys else ""
    separator = ", " if keys else " "
    if not messages:
        return ""
    return where + separator.join(dict.fromkeys(messages)).replace("':, ", "': ")


def _below(line: str, following: list[str]) -> list[str]:
    depth = _indent(line)
    end = next((i for i, x in enumerate(following) if x.strip() and _indent(x) <= depth), None)
    return following[:end]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def is_user_error(error: BaseException) -> bool:
    """Return whether the class of an error is one that wrong input or a wrong environment cause."""
    # By name, because importing is slow, and lightning and pytorch_lightning both define one.
    names = {c.__name__ for c in type(error).__mro__}
    is_misconfiguration = bool(names & {"MisconfigurationException", "DistNetworkError"})
    kinds = (ValueError, ImportError, OSError, ArgumentError, UnpicklingError)
    return is_misconfiguration or isinstance(error, kinds)
