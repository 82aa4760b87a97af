"""What became of everything that a language model proposed; nothing is dropped in silence."""

from collections import Counter

_EVENTS = {
    "plans": "paths asked for",
    "corrections": "replies asked for again, with what was wrong",
    "empty": "replies without text",
    "refused": "replies that refuse",
    "truncated": "replies cut at the length limit",
    "no list": "replies without a list of titles",
    "titles": "titles listed",
    "grounded": "titles that are items of the catalogue and may be recommended",
    "unknown": "titles that no item has",
    "in history": "titles that the user has taken before",
    "repeated": "titles that the path has already",
    "target named": "plans that name the target",
    "beyond length": "titles after the path was full",
    "refilled": "items that the fallback planner chose instead",
    "choices": "items asked for by a number in a list",
    "no choice": "replies that name no number of the list, or several",
    "judged": "paths that a language model judged",
    "no number": "paths left out, since no reply gave one number from 0 to 1",
}


class PlanReport(Counter[str]):
    """Counts of events; :meth:`__str__` is for people.

    After the last reply to a plan, each of its titles is counted under just one of ``grounded``,
    ``unknown``, ``in history``, ``repeated``, ``target named`` and ``beyond length``, so that they
    add up to ``titles``.
    """

    def note(self, event: str, number: int = 1) -> None:
        """Count an event.

        Raises:
            KeyError: an event that is not known.
        """
        if event not in _EVENTS:
            raise KeyError(event)
        self[event] += number

    def __str__(self) -> str:
        return "\n".join(f"{self[name]:8d} {text}" for name, text in _EVENTS.items() if self[name])
