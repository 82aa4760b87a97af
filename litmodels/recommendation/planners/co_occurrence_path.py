"""The likeliest walk to the target over what people took one after another."""

import torch
from torch import Tensor

from lightning_plugins.litmodels.recommendation.planners.planner import (
    Knowledge,
    Planner,
    Sessions,
)


class CoOccurrencePath(Planner):
    r"""Of all walks that end at the target, with as many steps as are left, the likeliest.

    A step from i to j has the probability :math:`(n_{ij} + p_j) / (n_i + 1)` with :math:`n_{ij}`
    the times that j was taken right after i, :math:`n_i` their sum and :math:`p_j` the share of j
    among all interactions, so that every item can be reached. After each step the walk is planned
    again from what was taken.

    Needs the square of the number of items in memory.

    Source: Pf2Inf of Zhu et al., arXiv 2211.10002, takes the shortest path in this graph; here it
    has the length of all other planners' paths.
    """

    def preferences(self, sessions: Sessions, knowledge: Knowledge) -> Tensor:
        """Log-probability of the likeliest walk through each item."""
        if sessions.step == 0:
            self._steps = _log_transitions(knowledge)
            self._rest = _log_walks(self._steps, sessions.targets, sessions.length)
        left = sessions.length - sessions.step
        return self._steps[sessions.last_taken()] + self._rest[left]


def _log_transitions(knowledge: Knowledge) -> Tensor:
    """Log-probability of j after i, ``(num_items + 1, num_items + 1)``."""
    size = len(knowledge.catalogue)
    counts = torch.zeros(size, size)
    for sequence in knowledge.sequences:
        items = torch.as_tensor(sequence, dtype=torch.int64)
        pairs = items[:-1], items[1:]
        counts.index_put_(pairs, torch.ones(len(pairs[0])), accumulate=True)
    share = knowledge.item_counts / knowledge.item_counts.sum().clamp(min=1)
    # An item that nobody was trained on has no share; it comes after all others, not never.
    share = share.clamp(min=1e-9)
    return ((counts + share) / (counts.sum(dim=1, keepdim=True) + 1)).log()


def _log_walks(steps: Tensor, targets: Tensor, longest: int) -> list[Tensor]:
    """Of 0, 1, 2 … steps: log-probability of the likeliest walk from each item to each target."""
    walks = [torch.full((len(targets), len(steps)), -torch.inf)]
    walks[0][torch.arange(len(targets)), targets] = 0
    for _ in range(longest):
        best = [(steps + from_there).max(dim=1).values for from_there in walks[-1]]
        walks.append(torch.stack(best))
    return walks
