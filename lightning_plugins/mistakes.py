"""A user's mistake, told in one line."""

import difflib
import re
import sys
from argparse import ArgumentError
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

_NOISE = re.compile(
    r"^(Does not validate against any of the Union subtypes|Subtypes: .*|Errors:|"
    r"Expected a <class 'NoneType'>.*|Expected a path but .*|Given value type: .*|"
    r"Given value: .*|Parser key \"[a-z_]+\":|Not a valid subclass of .*|"
    r"Subclass types expect one of:|a class path \(str\)|a dict with(out)? .*)$"
)


class Mistake(Exception):
    """What the command line answers with one line and exit code 2; its cause is the error."""


@contextmanager
def told_in_one_line(
    unless: Callable[[], bool] = lambda: False,
    known_names: Callable[[], Iterable[str]] = tuple,
) -> Iterator[None]:
    """Turn errors that a user can mend into a :class:`Mistake`.

    Args:
        unless: asked when an error comes; the error stays as it is where this is true, as in a
            run that has already trained, where the traceback is what helps.
        known_names: asked when an error comes; options and classes to look for near names in.
    """
    try:
        yield
    except Exception as error:
        if unless() or not _is_mistake(error):
            raise
        text = one_line(error)
        raise Mistake(text + _near_names(text, known_names)) from error


def one_line(error: BaseException) -> str:
    """What ``error`` says of its innermost cause, in one line."""
    # The parser's message says which argument was wrong, but wraps it in the types it tried.
    lines = [line.strip().removeprefix("- ") for line in str(error).splitlines()]
    told = [line for line in lines if line and not _NOISE.match(line)]
    if any(line.startswith("Problem with") for line in told):
        told = [line for line in told if not line.startswith(("Expected a ", "Parser key"))]
    innermost = error
    while (inner := innermost.__cause__ or innermost.__context__) is not None:
        innermost = inner
    text = " ".join(told) or " ".join(str(innermost).split()) or type(innermost).__name__
    return re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)


def _is_mistake(error: BaseException) -> bool:
    # By name, because lightning and pytorch_lightning each have the class and importing is slow.
    is_misconfiguration = any(c.__name__ == "MisconfigurationException" for c in type(error).__mro__)
    kinds = (ValueError, ImportError, FileNotFoundError, ArgumentError, ConnectionError)
    return is_misconfiguration or isinstance(error, kinds)


def _near_names(text: str, known_names: Callable[[], Iterable[str]]) -> str:
    if "did you mean" in text:
        return ""
    if missing := re.search(r"module '([\w.]+)' has no attribute '(\w+)'", text):
        name, candidates = missing[2], dir(sys.modules.get(missing[1]))
    elif unknown := re.search(r"(?:path string: |arguments: --|option ')([\w.]+)", text):
        name, candidates = unknown[1], list(known_names())
    else:
        return ""
    near = difflib.get_close_matches(name, candidates, 3, 0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""
