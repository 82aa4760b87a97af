"""The table of interactions that every reader returns, and the k-core filter on it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from lightning_plugins.nn.recommendation import Item
from lightning_plugins.nn.recommendation.catalogue import ItemId


@dataclass(frozen=True)
class InteractionTable:
    """Interactions as read from a file, one per row, before any filter.

    Args:
        users: User identifiers, ``(rows,)`` strings or integers.
        items: Item identifiers, ``(rows,)`` strings or integers.
        timestamps: Times of the interactions in any unit, float64 ``(rows,)``.
        ratings: Ratings, float64 ``(rows,)``, or None if the data has none.
        facts: Title, year and genres of items by identifier. Items without an entry are allowed.
        profiles: What is known about users, as text, by identifier.
    """

    users: np.ndarray
    items: np.ndarray
    timestamps: np.ndarray
    ratings: np.ndarray | None = None
    facts: Mapping[ItemId, Item] = field(default_factory=dict)
    profiles: Mapping[ItemId, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.users)

    def rows(self, chosen: np.ndarray) -> "InteractionTable":
        """Return the rows selected by a mask, or by indices in their order."""
        return replace(
            self,
            users=self.users[chosen],
            items=self.items[chosen],
            timestamps=self.timestamps[chosen],
            ratings=None if self.ratings is None else self.ratings[chosen],
        )


def k_core(users: np.ndarray, items: np.ndarray, min_user: int, min_item: int) -> np.ndarray:
    """Return the mask ``(rows,)`` of the largest subset that meets both minimum counts.

    Removing an item can leave a user with too few interactions, so the filter is repeated until
    nothing changes. The result does not depend on the order of removal.

    Args:
        users: The user of each interaction, ``(rows,)``.
        items: The item of each interaction, ``(rows,)``.
        min_user: Minimum number of interactions per user.
        min_item: Minimum number of interactions per item.
    """
    user_codes = np.unique(users, return_inverse=True)[1]
    item_codes = np.unique(items, return_inverse=True)[1]
    kept = np.ones(len(users), dtype=bool)
    while True:
        user_counts = np.bincount(user_codes[kept], minlength=user_codes.max(initial=0) + 1)
        item_counts = np.bincount(item_codes[kept], minlength=item_codes.max(initial=0) + 1)
        enough = (user_counts[user_codes] >= min_user) & (item_counts[item_codes] >= min_item)
        if not (kept & ~enough).any():
            return kept
        kept &= enough
