"""What is known of the items that can be recommended."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Item:
    """One item.

    Args:
        title: as people write it, without the year.
        year: of its release, where known.
        genres: or other attributes that items share.
    """

    title: str
    year: int | None = None
    genres: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.title if self.year is None else f"{self.title} ({self.year})"


class Catalogue(Sequence[Item]):
    """Items by their number, 1 to ``num_items``; number 0 is padding and no item.

    Args:
        items: item 1, item 2 and so on.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = (Item(""), *items)
        self.genres = tuple(sorted({genre for item in items for genre in item.genres}))

    @property
    def num_items(self) -> int:
        """Items, without the padding."""
        return len(self._items) - 1

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, number: int) -> Item:  # type: ignore[override]
        return self._items[number]

    def genre_indicators(self) -> Tensor:
        """Which genres each item has: bool ``(num_items + 1, genres)``."""
        column = {genre: place for place, genre in enumerate(self.genres)}
        indicators = torch.zeros(len(self), len(self.genres), dtype=torch.bool)
        for number, item in enumerate(self._items):
            for genre in item.genres:
                indicators[number, column[genre]] = True
        return indicators
