"""The floor of every comparison: any item."""

import torch
from torch import Tensor

from lightning_plugins.litmodels.recommendation.planners.planner import (
    Knowledge,
    Planner,
    Sessions,
)


class RandomItems(Planner):
    """Items drawn uniformly. Even this raises the interest in a random target a little."""

    def begin(self, seed: int) -> None:
        """Start over, with randomness from ``seed``."""
        self._generator = torch.Generator().manual_seed(seed)

    def preferences(self, sessions: Sessions, knowledge: Knowledge) -> Tensor:
        """Uniform noise."""
        return torch.rand(sessions.allowed.shape, generator=self._generator)
