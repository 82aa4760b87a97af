"""User errors in one line."""

import difflib
import inspect
import re
import sys
from argparse import ArgumentError
from collections.abc import Callable, Iterable, Iterator
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


class UserError(Exception):
    """An error that the command line prints in one line with exit code 2."""


@contextmanager
def user_errors_in_one_line(
    unless: Callable[[], bool] = lambda: False,
    known_names: Callable[[], Iterable[str]] = tuple,
) -> Iterator[None]:
    """Convert errors that a user can correct into a :class:`UserError`.

    Args:
        unless: Called when an error is raised. If it returns True, the error is unchanged, for
            example in a run that has already trained, where the traceback is useful.
        known_names: Called when an error is raised. Returns the names of options and classes among
            which similar names are suggested.
    """
    try:
        yield
    except Exception as error:
        if unless() or not _is_user_error(error):
            raise
        text = one_line(error)
        raise UserError(text + _similar_names(text, known_names)) from error


def one_line(error: BaseException) -> str:
    """Return the message of ``error``, or of its innermost cause, in one line."""
    if isinstance(error, UnpicklingError):  # torch's own message recommends weights_only=False
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = named[1] if named else "something"
        return f"the checkpoint was not loaded: it contains {what}, not only tensors and plain data"
    innermost = error
    while (inner := innermost.__cause__ or innermost.__context__) is not None:
        innermost = inner
    text = _parsed(str(error)) or " ".join(str(innermost).split()) or type(innermost).__name__
    return re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)


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


def _is_user_error(error: BaseException) -> bool:
    # By name, because lightning and pytorch_lightning both define the class and importing is slow.
    is_misconfiguration = any(
        c.__name__ == "MisconfigurationException" for c in type(error).__mro__
    )
    kinds = (ValueError, ImportError, FileNotFoundError, ConnectionError)
    return is_misconfiguration or isinstance(error, (*kinds, ArgumentError, UnpicklingError))


def _similar_names(text: str, known_names: Callable[[], Iterable[str]]) -> str:
    if "did you mean" in text:
        return ""
    if missing := re.search(r"module '([\w.]+)' has no attribute '(\w+)'", text):
        name, candidates = missing[2], dir(sys.modules.get(missing[1]))
    elif refused := re.search(r"class_path '([\w.]+)\.(\w+)': Option '(\w+)'", text):
        owner = getattr(sys.modules.get(refused[1]), refused[2], None)
        name, candidates = refused[3], list(inspect.signature(owner).parameters) if owner else []
    elif unknown := re.search(r"(?:path string: |arguments: --|option ')([\w.]+)", text):
        name, candidates = unknown[1], list(known_names())
    else:
        return ""
    near = difflib.get_close_matches(name, candidates, 3, 0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""
