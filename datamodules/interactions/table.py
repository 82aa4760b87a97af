"""Interactions as read from a file, before anything is left out."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from lightning_plugins.nn.recommendation import Item


@dataclass(frozen=True)
class InteractionTable:
    """One row an interaction.

    Args:
        users: names of users, ``(rows,)`` strings.
        items: names of items, ``(rows,)`` strings.
        timestamps: float64 ``(rows,)``, in any unit.
        ratings: float64 ``(rows,)``, or None where the data has none.
        facts: what is known of items, by name.
    """

    users: np.ndarray
    items: np.ndarray
    timestamps: np.ndarray
    ratings: np.ndarray | None = None
    facts: Mapping[str, Item] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.users)

    def rows(self, chosen: np.ndarray) -> "InteractionTable":
        """The chosen rows: a mask, or indices in their order."""
        ratings = None if self.ratings is None else self.ratings[chosen]
        return InteractionTable(
            self.users[chosen], self.items[chosen], self.timestamps[chosen], ratings, self.facts
        )
