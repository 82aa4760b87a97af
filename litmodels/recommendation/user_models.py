"""Users who take what is recommended to them, or do not."""

from typing import Protocol

import torch
from torch import Tensor

from lightning_plugins.litmodels.recommendation.planners.planner import Sessions
from lightning_plugins.nn.recommendation import ItemNetwork


class UserModel(Protocol):
    """Decides on each recommendation of a closed loop."""

    def accepts(self, sessions: Sessions) -> Tensor:
        """Whether each user takes the last item of the path: bool ``(users,)``."""


class TakesEverything:
    """The open loop: the plan is followed whatever it is."""

    def accepts(self, sessions: Sessions) -> Tensor:
        """True for all."""
        return torch.ones(len(sessions.paths), dtype=torch.bool)


class TakesTheLikely:
    """Takes an item that a next-item network ranks among its first ``rank`` after what was taken.

    Ranked are all items that the user has not taken. The network should not be the planner's.

    Args:
        network: in evaluation mode.
        rank: last place that is still taken, 1 is the best.
    """

    def __init__(self, network: ItemNetwork, rank: int) -> None:
        self.network = network
        self.rank = rank

    def accepts(self, sessions: Sessions) -> Tensor:
        """Whether the last item of each path is likely enough: bool ``(users,)``."""
        logits = self.network.logits(sessions.states(self.network)).cpu()
        for row, taken in zip(logits, sessions.taken, strict=True):
            row[taken] = -torch.inf
        items = torch.tensor([path[-1] for path in sessions.paths])
        own = logits.gather(1, items[:, None])
        return (logits > own).sum(dim=1) < self.rank
