"""Reads the list of titles out of whatever a language model wrote."""

import ast
import json
import re
from dataclasses import dataclass
from typing import Literal

Problem = Literal["empty", "refused", "truncated", "no list"]

_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL | re.IGNORECASE)
_FENCED = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
_ENTRY = re.compile(r"^\s*(?:\d{1,3}\s*[.):]|[-*•])\s+(?P<title>\S.*)$")
_REFUSAL = re.compile(
    r"\b(?:I(?:'m| am) (?:sorry|unable|not able)|I (?:can(?:no|')t|won't)|as an AI)\b",
    re.IGNORECASE,
)
_LONGEST = 100_000
_MOST = 200


@dataclass(frozen=True)
class ListedTitles:
    """Titles in the order of a reply, and what was wrong with it, if something was.

    A truncated reply may still have titles: those that it has whole.
    """

    titles: tuple[str, ...]
    problem: Problem | None = None


def listed_titles(reply: str, is_truncated: bool = False) -> ListedTitles:
    """The titles that a reply lists: as JSON, as a Python list, or numbered or dashed, one a line.

    Thoughts (``<think>``), code fences and prose around the list are skipped. Of several lists the
    last that has text in it counts. Nothing is evaluated: literals only.

    Args:
        reply: text of a model; what is beyond 100 000 characters is not read.
        is_truncated: the server said that it stopped at the length limit.
    """
    text = without_thoughts(reply)
    if not text:
        return ListedTitles((), "truncated" if is_truncated else "empty")
    fenced = _FENCED.findall(text)
    for part in (*reversed(fenced), text):
        titles = _bracketed(part) or _one_a_line(part, is_truncated)
        if titles:
            return ListedTitles(titles[:_MOST], "truncated" if is_truncated else None)
    if is_truncated:
        return ListedTitles((), "truncated")
    return ListedTitles((), "refused" if _REFUSAL.search(text) else "no list")


def without_thoughts(reply: str) -> str:
    """What a reasoning model says after ``<think>…</think>``, of the first 100 000 characters."""
    return _THOUGHT.sub("", reply[:_LONGEST]).strip()


def _bracketed(text: str) -> tuple[str, ...]:
    """Entries of the last literal list of strings, or of objects with a title, in ``text``."""
    starts = [place for place, letter in enumerate(text) if letter == "["]
    ends = [place for place, letter in enumerate(text) if letter == "]"]
    # Titles may hold brackets, so both ends are tried, the widest first; bounded for hostile text.
    for end in ends[-1:-6:-1]:
        for start in starts[:6]:
            if start < end and (titles := _strings(_literal(text[start : end + 1]))):
                return titles
    return ()


def _literal(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)  # literals only: no names, no calls
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None


def _strings(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    titles = (entry.get("title") if isinstance(entry, dict) else entry for entry in value)
    return tuple(_clean(title) for title in titles if isinstance(title, str) and title.strip())


def _one_a_line(text: str, is_truncated: bool) -> tuple[str, ...]:
    lines = text.splitlines()
    if is_truncated:
        lines = lines[:-1]  # the last one may be cut
    found = (_ENTRY.match(line) for line in lines)
    return tuple(_clean(match["title"]) for match in found if match)


def _clean(title: str) -> str:
    title = title.strip().strip("*_").rstrip(",;").strip()
    for opening, closing in (('"', '"'), ("'", "'"), ("“", "”"), ("«", "»")):
        if len(title) > 2 and title.startswith(opening) and title.endswith(closing):
            title = title[1:-1].strip()
    return title
