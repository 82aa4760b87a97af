"""What everybody takes."""

from torch import Tensor

from lightning_plugins.litmodels.recommendation.planners.planner import (
    Knowledge,
    Planner,
    Sessions,
)


class Popular(Planner):
    """The most taken items of the training part, whatever the target."""

    def preferences(self, sessions: Sessions, knowledge: Knowledge) -> Tensor:
        """Interactions of each item."""
        return knowledge.item_counts.float().expand(sessions.allowed.shape)
