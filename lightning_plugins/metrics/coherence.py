"""How well neighbours on a path go together."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def genre_jaccard(genres: Tensor, paths: Sequence[Sequence[int]]) -> Tensor:
    r"""Mean over neighbours of :math:`|G_a \cap G_b| / |G_a \cup G_b|`: ``(paths,)`` in [0, 1].

    Graded, where the share of neighbours with a genre in common (Hou et al., ProRL) saturates on
    catalogues of few genres. Two items without genres have nothing in common. A path of fewer than
    two items has no neighbours and gives NaN.

    Args:
        genres: which genres each item has, bool ``(num_items + 1, genres)``.
        paths: item numbers, usually with the target at the end.
    """
    return _mean_over_neighbours(paths, lambda a, b: _jaccard(genres[a], genres[b]))


def vector_cosine(vectors: Tensor, paths: Sequence[Sequence[int]]) -> Tensor:
    """Mean over neighbours of the cosine of their vectors: ``(paths,)`` in [-1, 1].

    With :func:`co_consumption_vectors` it says how often the same users took both.

    Args:
        vectors: of each item, ``(num_items + 1, dim)``; a zero vector has cosine 0 with all.
        paths: item numbers; fewer than two of them give NaN.
    """
    return _mean_over_neighbours(
        paths, lambda a, b: torch.cosine_similarity(vectors[a], vectors[b], dim=-1)
    )


def co_consumption_vectors(sequences: Sequence[Sequence[int]], num_items: int) -> Tensor:
    """Which users took each item, float32 ``(num_items + 1, users)``."""
    taken = torch.zeros(num_items + 1, len(sequences))
    for user, items in enumerate(sequences):
        taken[torch.as_tensor(items, dtype=torch.int64), user] = 1
    return taken


def _mean_over_neighbours(
    paths: Sequence[Sequence[int]], alike: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    means = [
        alike(torch.tensor(path[:-1]), torch.tensor(path[1:])).float().mean()
        if len(path) > 1
        else torch.tensor(torch.nan)
        for path in paths
    ]
    return torch.stack(means)


def _jaccard(a: Tensor, b: Tensor) -> Tensor:
    shared, either = (a & b).sum(dim=-1), (a | b).sum(dim=-1)
    return shared / either.clamp(min=1)
