"""Parses the replies of language models, and counts the outcomes."""

import ast
import json
import re
from collections import Counter
from collections.abc import Iterable
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
_MAX_CHARACTERS = 100_000
_MAX_TITLES = 200

_LEADING_CHOICE = re.compile(r"\W*(\d{1,4})\s*(?:[.):*]+(?!\d)|\Z)")
_CHOICE = re.compile(r"(?<![\d.,-])\d{1,4}(?![\d]|[.,]\d)")
# A comma may be the decimal separator. A digit, point or sign before the number is part of it.
_PROBABILITY = re.compile(
    r"(?<![\w.,-])"
    r"(?:(?P<percent>\d{1,3}(?:[.,]\d+)?)\s*%|(?P<plain>[01]?[.,]\d+|[01])(?!\w|[.,]\d))"
)

_EVENTS = {
    "plans": "paths requested",
    "request failed": "requests without a reply from the server",
    "corrections": "corrections requested",
    "empty": "empty replies",
    "refused": "replies that refuse the request",
    "truncated": "replies cut off at the length limit",
    "no list": "replies without a list of titles",
    "titles": "titles listed",
    "grounded": "titles of catalogue items that may be recommended",
    "unknown": "titles that match no item",
    "in history": "titles already in the user's history",
    "repeated": "titles already on the path",
    "target named": "plans that name the target",
    "target last": "plans that end with the target",
    "beyond length": "titles beyond the end of the path",
    "refilled": "items chosen by the fallback planner",
    "left empty": "paths left empty because their plan is invalid",
    "choices": "items requested by their number in a list",
    "no choice": "replies with no valid list number, or with several",
    "judged": "paths judged by a language model",
    "no number": "paths left out because no reply had one number from 0 to 1",
}


class PlanReport(Counter[str]):
    """Counts the outcomes of language model replies; ``str`` formats them for printing.

    Each title in the last reply to a plan is counted under exactly one of ``grounded``,
    ``unknown``, ``in history``, ``repeated``, ``target named`` and ``beyond length``, so these
    counts add up to ``titles``.
    """

    def note(self, event: str, number: int = 1) -> None:
        """Count an event.

        Raises:
            KeyError: The event is unknown.
        """
        if event not in _EVENTS:
            raise KeyError(event)
        self[event] += number

    def __str__(self) -> str:
        return "\n".join(f"{self[name]:8d} {text}" for name, text in _EVENTS.items() if self[name])


@dataclass(frozen=True)
class ListedTitles:
    """The titles of a reply in order, and the problem with the reply, if any.

    A truncated reply can still have titles: those before the cut.
    """

    titles: tuple[str, ...]
    problem: Problem | None = None


def listed_titles(reply: str, is_truncated: bool = False) -> ListedTitles:
    """Parse the titles of a reply: a JSON or Python list, or one numbered or dashed line each.

    Thoughts (``<think>``), code fences and prose around the list are skipped. If there are several
    lists, the last one that contains text is used. Nothing is evaluated except literals.

    Args:
        reply: Text of a model. Only the first 100 000 characters are read.
        is_truncated: Whether the server stopped at the length limit.
    """
    text = without_thoughts(reply)
    if not text:
        return ListedTitles((), "truncated" if is_truncated else "empty")
    fenced = _FENCED.findall(text)
    for part in (*reversed(fenced), text):
        titles = _bracketed(part) or _one_per_line(part, is_truncated)
        if titles:
            return ListedTitles(titles[:_MAX_TITLES], "truncated" if is_truncated else None)
    if is_truncated:
        return ListedTitles((), "truncated")
    return ListedTitles((), "refused" if _REFUSAL.search(text) else "no list")


def chosen_number(reply: str, highest: int) -> int | None:
    """Return the number from 1 to ``highest`` in a reply, or None if there is none or several."""
    text = without_thoughts(reply)
    leading = _LEADING_CHOICE.match(text)  # a title with other numbers may follow
    found = [leading[1]] if leading and text[0] != "-" else _CHOICE.findall(text)
    inside = {int(number) for number in found if 1 <= int(number) <= highest}
    return inside.pop() if len(inside) == 1 else None


def probability(reply: str) -> float | None:
    """Return the number from 0 to 1 in a reply, or None if there is none or several.

    Supported forms are ``0``, ``1``, ``1.0``, ``.7``, ``0,7`` and ``70 %``. Values above 1 are
    clamped to 1.
    """
    found = set()
    for match in _PROBABILITY.finditer(without_thoughts(reply)):
        scale = 100 if match["percent"] else 1
        text = (match["percent"] or match["plain"]).replace(",", ".")
        found.add(min(1.0, float(text) / scale))
    return found.pop() if len(found) == 1 else None


def without_thoughts(reply: str) -> str:
    """Remove ``<think>…</think>`` from the first 100 000 characters of a reply."""
    return _THOUGHT.sub("", reply[:_MAX_CHARACTERS]).strip()


def _bracketed(text: str) -> tuple[str, ...]:
    """Return the entries of the last literal list of strings, or of objects with a title."""
    starts = [place for place, letter in enumerate(text) if letter == "["]
    ends = [place for place, letter in enumerate(text) if letter == "]"]
    # Titles may contain brackets, so several starts and ends are tried, the widest range first.
    # The number of attempts is bounded because the text is untrusted.
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
    return _cleaned(title for title in titles if isinstance(title, str))


def _one_per_line(text: str, is_truncated: bool) -> tuple[str, ...]:
    lines = text.splitlines()
    if is_truncated:
        lines = lines[:-1]  # the last one may be incomplete
    found = (_ENTRY.match(line) for line in lines)
    return _cleaned(match["title"] for match in found if match)


def _cleaned(titles: Iterable[str]) -> tuple[str, ...]:
    """Clean the titles, and leave out those of punctuation that is not part of a title."""
    return tuple(title for title in map(_clean, titles) if title)


def _clean(title: str) -> str:
    title = title.strip().strip("*_").rstrip(",;").strip()
    for opening, closing in (('"', '"'), ("'", "'"), ("“", "”"), ("«", "»")):
        if len(title) > 2 and title.startswith(opening) and title.endswith(closing):
            title = title[1:-1].strip()
    return title
