"""Whether a path shows a user different things, and things that are new to them."""

from collections.abc import Sequence

import torch
from torch import Tensor


def genre_variety(genres: Tensor, paths: Sequence[Sequence[int]]) -> Tensor:
    r"""Intra-list distance: mean over all pairs of :math:`1 - |G_a \cap G_b| / |G_a \cup G_b|`.

    In [0, 1], ``(paths,)``; 0 is an echo chamber. Two items without genres have distance 1. Fewer
    than two items give NaN.

    Source: Ziegler et al., Improving recommendation lists through topic diversification, WWW 2005.

    Args:
        genres: which genres each item has, bool ``(num_items + 1, genres)``.
        paths: item numbers.
    """
    values = []
    for path in paths:
        of_items = genres[torch.tensor(path, dtype=torch.int64)].float()
        shared = of_items @ of_items.T
        sizes = of_items.sum(dim=1)
        either = (sizes[:, None] + sizes - shared).clamp(min=1)
        pairs = torch.triu_indices(len(path), len(path), offset=1)
        values.append((1 - shared / either)[pairs[0], pairs[1]].mean())
    return torch.stack(values)


def new_genre_share(
    genres: Tensor, histories: Sequence[Sequence[int]], paths: Sequence[Sequence[int]]
) -> Tensor:
    """Share of a path's items with a genre that no item of the history has: ``(paths,)``.

    In [0, 1]; NaN for an empty path.

    Args:
        genres: which genres each item has, bool ``(num_items + 1, genres)``.
        histories: item numbers that each user took before.
        paths: item numbers.
    """
    values = []
    for history, path in zip(histories, paths, strict=True):
        known = genres[torch.tensor(history, dtype=torch.int64)].any(dim=0)
        of_items = genres[torch.tensor(path, dtype=torch.int64)]
        values.append((of_items & ~known).any(dim=1).float().mean())
    return torch.stack(values)
