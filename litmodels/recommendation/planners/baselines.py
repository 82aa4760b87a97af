"""Planners that ignore the target; every comparison includes them."""

import torch
from torch import Tensor

from lightning_plugins.litmodels.recommendation.planners.planner import (
    Knowledge,
    Planner,
    Sessions,
)


class RandomItems(Planner):
    """Draws items uniformly. Even random paths slightly raise the interest in a random target."""

    def begin(self, seed: int) -> None:
        """Reset, with randomness from ``seed``."""
        self._generator = torch.Generator().manual_seed(seed)

    def preferences(self, sessions: Sessions, knowledge: Knowledge) -> Tensor:
        """Return uniform noise."""
        return torch.rand(sessions.allowed.shape, generator=self._generator)


class Popular(Planner):
    """Recommends the most popular items of the training part."""

    def preferences(self, sessions: Sessions, knowledge: Knowledge) -> Tensor:
        """Return the number of interactions of each item."""
        return knowledge.item_counts.float().expand(sessions.allowed.shape)


class NextItem(Planner):
    """Recommends the backbone's most likely next item; called "vanilla" in the papers."""

    def preferences(self, sessions: Sessions, knowledge: Knowledge) -> Tensor:
        """Return the backbone's logits."""
        return knowledge.backbone.logits(sessions.states(knowledge.backbone))
