"""A user's mistake, told in one line."""

import difflib
import inspect
import re
import sys
from argparse import ArgumentError
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pickle import UnpicklingError

# What jsonargparse says of the types it tried, around what was wrong.
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
    """What the command line answers with one line and exit code 2; its cause is the error."""


@contextmanager
def user_errors_in_one_line(
    unless: Callable[[], bool] = lambda: False,
    known_names: Callable[[], Iterable[str]] = tuple,
) -> Iterator[None]:
    """Turn errors that a user can mend into a :class:`UserError`.

    Args:
        unless: asked when an error comes; the error stays as it is where this is true, as in a
            run that has already trained, where the traceback is what helps.
        known_names: asked when an error comes; options and classes to look for near names in.
    """
    try:
        yield
    except Exception as error:
        if unless() or not _is_user_error(error):
            raise
        text = one_line(error)
        raise UserError(text + _near_names(text, known_names)) from error


def one_line(error: BaseException) -> str:
    """What ``error`` says of its innermost cause, in one line."""
    if isinstance(error, UnpicklingError):  # torch's own text recommends weights_only=False
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = named[1] if named else "something"
        return f"the checkpoint was not loaded: it holds {what}, more than tensors and plain data"
    innermost = error
    while (inner := innermost.__cause__ or innermost.__context__) is not None:
        innermost = inner
    text = _told(str(error)) or " ".join(str(innermost).split()) or type(innermost).__name__
    return re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)


def _told(message: str) -> str:
    """The parser's tree of attempts as ``key: what was wrong``; other messages as they are."""
    keys, told, given = [], [], ""
    lines = message.splitlines()
    while lines:
        line = lines.pop(0)
        text = line.strip().removeprefix("- ")
        if key := _KEY.fullmatch(text):
            keys.append(key[1])
        elif value := _GIVEN.fullmatch(text):
            given = value[1]
        elif _CLASS.fullmatch(text):
            # A class was found, so its own complaint is what matters, not the types tried after.
            told, lines = [text], _below(line, lines)
        elif text and not _NOISE.fullmatch(text):
            told.append(text)
    if keys and told and told[-1].startswith("Expected a <class") and "Got value" not in told[-1]:
        told.append(f"got {given}")
    if len(keys) > 1:  # the key says where, so the class need not
        told = [text for text in told if not _CLASS.fullmatch(text)]
    where = f"{'.'.join(keys)}: " if keys else ""
    separator = ", " if keys else " "
    return where + separator.join(dict.fromkeys(told)).replace("':, ", "': ") if told else ""


def _below(line: str, following: list[str]) -> list[str]:
    depth = _indent(line)
    end = next((i for i, x in enumerate(following) if x.strip() and _indent(x) <= depth), None)
    return following[:end]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _is_user_error(error: BaseException) -> bool:
    # By name, because lightning and pytorch_lightning each have the class and importing is slow.
    is_misconfiguration = any(
        c.__name__ == "MisconfigurationException" for c in type(error).__mro__
    )
    kinds = (ValueError, ImportError, FileNotFoundError, ConnectionError)
    return is_misconfiguration or isinstance(error, (*kinds, ArgumentError, UnpicklingError))


def _near_names(text: str, known_names: Callable[[], Iterable[str]]) -> str:
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
