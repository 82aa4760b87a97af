"""Measures of recommendation paths: influence, coherence and diversity."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def increase_of_interest(log_prob_before: Tensor, log_prob_after: Tensor) -> Tensor:
    r"""Compute IoI in nats: :math:`\log P(t \mid h \oplus p) - \log P(t \mid h)`; more is better.

    The probabilities come from an evaluator other than the planner. Even random paths have a
    positive IoI, because a random target is unlikely at the start; use them as the baseline.

    Source: Zhu et al., Influential Recommender System, arXiv 2211.10002, and its released code.

    Args:
        log_prob_before: Log-probability of the target after the history h, ``(paths,)``.
        log_prob_after: Log-probability after the history and the path p, ``(paths,)``.
    """
    return log_prob_after - log_prob_before


def increment_of_rank(rank_before: Tensor, rank_after: Tensor) -> Tensor:
    r"""Compute IoR in ranks: :math:`R(t \mid h) - R(t \mid h \oplus p)`; more is better.

    Both ranks have to be among the same items. In
    :func:`lightning_plugins.nn.recommendation.path_scores.path_scores`, the items of the history
    and of the path are left out of both rankings, so a path gains no ranks merely because it
    recommends the items that were ranked before the target.

    Source: Zhu et al., arXiv 2211.10002, with the sign reversed so that more is better. The
    released code also leaves out the items of history and path.

    Args:
        rank_before: Rank of the target after the history, 1 is best, ``(paths,)``.
        rank_after: Rank after the history and the path, ``(paths,)``.
    """
    return (rank_before - rank_after).float()


def path_perplexity(step_log_prob: Tensor) -> Tensor:
    r"""Compute the perplexity of paths: :math:`\exp(-\frac1M \sum_k \log P(i_k \mid h, i_{<k}))`.

    Fewer is more natural: a path of items that are each as likely as one of k items has the
    perplexity k. The released code of Zhu et al., arXiv 2211.10002, reports its logarithm.

    Args:
        step_log_prob: Mean log-probability of the items of each path, ``(paths,)``.
    """
    return torch.exp(-step_log_prob)


def genre_jaccard(genres: Tensor, paths: Sequence[Sequence[int]]) -> Tensor:
    r"""Compute the mean of :math:`|G_a \cap G_b| / |G_a \cup G_b|` over neighbours a, b of a path.

    This measure is graded. The share of neighbours with a common genre (Hou et al., ProRL)
    saturates on catalogues with few genres. Two items without genres have similarity 0.

    Args:
        genres: Which genres each item has, bool ``(num_items + 1, genres)``.
        paths: Item numbers, usually with the target at the end.

    Returns:
        ``(paths,)`` in [0, 1]; NaN for paths of fewer than two items.
    """
    return _mean_over_neighbours(paths, lambda a, b: _jaccard(genres[a], genres[b]))


def vector_cosine(vectors: Tensor, paths: Sequence[Sequence[int]]) -> Tensor:
    """Compute the mean cosine similarity of the vectors of neighbours on a path.

    With :func:`co_consumption_vectors`, it measures how often the same users took both items.

    Args:
        vectors: A vector per item, ``(num_items + 1, dim)``. A zero vector has cosine 0 with all.
        paths: Item numbers.

    Returns:
        ``(paths,)`` in [-1, 1]; NaN for paths of fewer than two items.
    """
    return _mean_over_neighbours(
        paths, lambda a, b: torch.cosine_similarity(vectors[a], vectors[b], dim=-1)
    )


def co_consumption_vectors(sequences: Sequence[Sequence[int]], num_items: int) -> Tensor:
    """Return which users took each item, float32 ``(num_items + 1, users)``."""
    taken = torch.zeros(num_items + 1, len(sequences))
    for user, items in enumerate(sequences):
        taken[torch.as_tensor(items, dtype=torch.int64), user] = 1
    return taken


def genre_variety(genres: Tensor, paths: Sequence[Sequence[int]]) -> Tensor:
    r"""Compute the intra-list distance, the mean of :math:`1 - |G_a \cap G_b| / |G_a \cup G_b|`
    over all pairs of items of a path.

    A value of 0 means an echo chamber. Two items without genres have distance 1.

    Source: Ziegler et al., Improving recommendation lists through topic diversification, WWW 2005.

    Args:
        genres: Which genres each item has, bool ``(num_items + 1, genres)``.
        paths: Item numbers.

    Returns:
        ``(paths,)`` in [0, 1]; NaN for paths of fewer than two items.
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
    """Compute the share of a path's items that have a genre which no item of the history has.

    Args:
        genres: Which genres each item has, bool ``(num_items + 1, genres)``.
        histories: Item numbers of each user before the path.
        paths: Item numbers.

    Returns:
        ``(paths,)`` in [0, 1]; NaN for an empty path.
    """
    values = []
    for history, path in zip(histories, paths, strict=True):
        known = genres[torch.tensor(history, dtype=torch.int64)].any(dim=0)
        of_items = genres[torch.tensor(path, dtype=torch.int64)]
        values.append((of_items & ~known).any(dim=1).float().mean())
    return torch.stack(values)


def _mean_over_neighbours(
    paths: Sequence[Sequence[int]], similarity: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    means = [
        similarity(torch.tensor(path[:-1]), torch.tensor(path[1:])).float().mean()
        if len(path) > 1
        else torch.tensor(torch.nan)
        for path in paths
    ]
    return torch.stack(means)


def _jaccard(a: Tensor, b: Tensor) -> Tensor:
    shared, either = (a & b).sum(dim=-1), (a | b).sum(dim=-1)
    return shared / either.clamp(min=1)
