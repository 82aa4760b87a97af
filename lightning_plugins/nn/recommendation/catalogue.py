"""The items that can be recommended, and vectors of their text."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

ItemId = str | int
"""An identifier of the user's own data: a string, or an integer where the file stores integers."""

_WORD = re.compile(r"[^\W\d_]{2,}")


@dataclass(frozen=True)
class Item:
    """One item.

    Args:
        title: The title, without the year.
        year: Year of release, if known.
        genres: Genres, or other attributes that items can share.
        text: A description, for the vectors of text.
    """

    title: str
    year: int | None = None
    genres: tuple[str, ...] = ()
    text: str = ""

    def __str__(self) -> str:
        return self.title if self.year is None else f"{self.title} ({self.year})"


class Catalogue(Sequence[Item]):
    """Items by number, from 1 to ``num_items``. Number 0 is padding, not an item.

    Args:
        items: Items in the order of their numbers, starting with item 1.
        ids: The items' own identifiers in the same order; None means their numbers.

    Attributes:
        ids: The identifiers in the order of the numbers, starting with item 1.

    Raises:
        ValueError: There are not as many different identifiers as items.
    """

    def __init__(self, items: Sequence[Item], ids: Sequence[ItemId] | None = None) -> None:
        self._items = (Item(""), *items)
        self.ids = tuple(range(1, len(self._items)) if ids is None else ids)
        self._numbers = {name: number for number, name in enumerate(self.ids, 1)}
        if not len(self.ids) == len(self._numbers) == len(items):
            raise ValueError(
                f"ids: {len(self._numbers)} different identifiers of {len(items)} items"
            )
        # A file of text stores the identifier 7 as "7". If one form is unknown, the other is meant.
        self._numbers_by_text = {str(name): number for name, number in self._numbers.items()}
        self.genres = tuple(sorted({genre for item in items for genre in item.genres}))

    @property
    def num_items(self) -> int:
        """Number of items, without the padding."""
        return len(self._items) - 1

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, number: int) -> Item:  # type: ignore[override]
        return self._items[number]

    def id_of(self, number: int) -> ItemId:
        """Return the identifier of item ``number``, from 1."""
        return self.ids[number - 1]

    def number_of(self, name: ItemId) -> int | None:
        """Return the number of the item with this identifier, or None if there is none.

        An integer also finds the string of its digits, and the reverse.
        """
        number = self._numbers.get(name)
        return self._numbers_by_text.get(str(name)) if number is None else number

    def genre_indicators(self) -> Tensor:
        """Return which genres each item has: bool ``(num_items + 1, genres)``."""
        column = {genre: place for place, genre in enumerate(self.genres)}
        indicators = torch.zeros(len(self), len(self.genres), dtype=torch.bool)
        for number, item in enumerate(self._items):
            for genre in item.genres:
                indicators[number, column[genre]] = True
        return indicators


def text_vectors(catalogue: Catalogue) -> Tensor:
    r"""Return TF-IDF vectors of unit length, ``(num_items + 1, words)``.

    The words are those of titles, genres and descriptions. The weight of a word is
    :math:`\log((1 + n) / (1 + n_w)) + 1`, where :math:`n_w` of the :math:`n` items have it. Genres
    count as separate words. An item without words has the zero vector. The inner product of two
    vectors is their cosine.
    """
    words = [Counter(_words(item)) for item in catalogue]
    item_counts = Counter(word for counts in words for word in counts)
    column = {word: place for place, word in enumerate(sorted(item_counts))}
    weight = {
        word: math.log((1 + catalogue.num_items) / (1 + count)) + 1
        for word, count in item_counts.items()
    }
    vectors = torch.zeros(len(catalogue), len(column))
    for number, counts in enumerate(words):
        for word, count in counts.items():
            vectors[number, column[word]] = count * weight[word]
    return normalize(vectors, dim=1)


def _words(item: Item) -> list[str]:
    # The prefix distinguishes the genre Drama from the word "drama" in a title.
    words = _WORD.findall(f"{item.title} {item.text}".lower())
    return words + [f"genre {genre}" for genre in item.genres]
