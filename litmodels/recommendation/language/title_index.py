"""Looks up the catalogue item that a text names."""

import difflib
import re
import unicodedata
from collections import defaultdict

from lightning_plugins.nn.recommendation.catalogue import Catalogue

_YEAR = re.compile(r"\((\d{4})\)")
_TRAILING_ARTICLE = re.compile(r"^(?P<rest>.+), (?P<article>the|an?|les?|la|l'|il|der|die|das|el)$")
_LEADING_ARTICLE = re.compile(r"^(?:the|an?|les?|la|il|der|die|das|el) (?=\S)")


class TitleIndex:
    """Looks up items by title, ignoring case, accents, punctuation and the article's position.

    An exact match takes precedence. Otherwise a similar title matches if there is exactly one.

    Args:
        catalogue: The items.
        similarity: Minimum ``difflib`` ratio of a misspelt title, in (0, 1].

    Raises:
        ValueError: ``similarity`` is out of range.
    """

    def __init__(self, catalogue: Catalogue, similarity: float = 0.9) -> None:
        if not 0 < similarity <= 1:
            raise ValueError(f"similarity={similarity}: expected a number in (0, 1]")
        self.catalogue = catalogue
        self.similarity = similarity
        self._by_title: dict[str, list[int]] = defaultdict(list)
        for number in range(1, len(catalogue)):
            self._by_title[normalized(catalogue[number].title)].append(number)

    def find(self, text: str) -> int | None:
        """Return the number of the item that ``text`` names, or None.

        A year in parentheses must equal the item's year, if the item has one. Text after the year,
        such as genres, is ignored. If several items have the same title and the text has no year,
        the first item is returned.
        """
        title, year = _title_and_year(text)
        wanted = normalized(title)
        if not wanted:
            return None
        exact = self._of_year(self._by_title.get(wanted, []), year)
        if exact:
            return exact[0]
        near = difflib.get_close_matches(wanted, self._by_title, n=2, cutoff=self.similarity)
        found = [number for key in near for number in self._of_year(self._by_title[key], year)]
        return found[0] if len(found) == 1 else None

    def _of_year(self, numbers: list[int], year: int | None) -> list[int]:
        if year is None:
            return numbers
        return [n for n in numbers if self.catalogue[n].year in (None, year)]


def normalized(title: str) -> str:
    """Return ``title`` in lower case, without accents, punctuation and leading article."""
    plain = unicodedata.normalize("NFKD", title).casefold()
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter)).strip()
    if found := _TRAILING_ARTICLE.match(plain):
        plain = f"{found['article']} {found['rest']}"
    plain = plain.replace("&", " and ").replace("'", "").replace("’", "")
    words = " ".join(re.sub(r"[^\w]+|_", " ", plain).split())
    return _LEADING_ARTICLE.sub("", words)


def _title_and_year(text: str) -> tuple[str, int | None]:
    years = list(_YEAR.finditer(text))
    if not years or not text[: years[-1].start()].strip():
        return text, None
    return text[: years[-1].start()], int(years[-1][1])
