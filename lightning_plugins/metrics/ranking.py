"""Ranking metrics with one relevant item per sample: hit rate, NDCG and MRR."""

import torch
from torch import Tensor

from lightning_plugins.metrics.mean_with_error import MeanWithError


def target_ranks(scores: Tensor, targets: Tensor) -> Tensor:
    r"""Return the rank of each target among all items, int64 ``(batch,)``; 1 is best.

    :math:`R(t) = 1 + |\{i \neq t : s_i \geq s_t\}|` over items with a score above minus infinity.
    Ties count against the target, so constant scores gain nothing.

    Args:
        scores: Scores ``(batch, items)``. Minus infinity or NaN excludes an item from the ranking.
        targets: Columns of ``scores``, int64 ``(batch,)``.
    """
    own = scores.gather(1, targets[:, None]).nan_to_num(nan=-torch.inf)
    not_below = (scores >= own) & (scores > -torch.inf)
    not_below.scatter_(1, targets[:, None], False)
    return 1 + not_below.sum(dim=1)


class _AtRank(MeanWithError):
    """The mean over samples of a gain that is 0 beyond rank ``k``."""

    higher_is_better = True

    def __init__(self, k: int = 10) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"k={k}: expected at least 1")
        self.k = k

    def update(self, ranks: Tensor) -> None:
        """Add the ranks ``(batch,)`` of the targets, as returned by :func:`target_ranks`."""
        super().update(torch.where(ranks <= self.k, self._gain(ranks.double()), 0.0))

    def _gain(self, ranks: Tensor) -> Tensor:
        raise NotImplementedError


class HitRate(_AtRank):
    """The share of targets among the first ``k``. With one target per sample it equals recall.

    Args:
        k: Length of the list, at least 1.
    """

    def _gain(self, ranks: Tensor) -> Tensor:
        return torch.ones_like(ranks)


class NDCG(_AtRank):
    r"""Normalized discounted cumulative gain with one target, :math:`1 / \log_2(1 + R)`.

    Source: Järvelin and Kekäläinen, ACM TOIS 20(4), 2002. The ideal gain for one target is 1.

    Args:
        k: Length of the list, at least 1.
    """

    def _gain(self, ranks: Tensor) -> Tensor:
        return 1 / torch.log2(1 + ranks)


class MRR(_AtRank):
    """The mean reciprocal rank, 0 beyond ``k``.

    Args:
        k: Length of the list, at least 1.
    """

    def _gain(self, ranks: Tensor) -> Tensor:
        return 1 / ranks
