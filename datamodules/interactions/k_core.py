"""The part of the data in which every user and every item has enough interactions."""

import numpy as np


def k_core(users: np.ndarray, items: np.ndarray, min_user: int, min_item: int) -> np.ndarray:
    """Mask ``(rows,)`` of the largest part that meets both minima.

    Leaving out an item may leave a user with too few, so it is repeated until nothing changes; the
    result does not depend on the order.

    Args:
        users: of each interaction, ``(rows,)``.
        items: of each interaction, ``(rows,)``.
        min_user: interactions that a user must have.
        min_item: interactions that an item must have.
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
