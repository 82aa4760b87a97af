"""A recommender without a target."""

from torch import Tensor

from lightning_plugins.litmodels.recommendation.planners.planner import (
    Knowledge,
    Planner,
    Sessions,
)


class NextItem(Planner):
    """What the backbone expects next, whatever the target; the papers' "vanilla"."""

    def preferences(self, sessions: Sessions, knowledge: Knowledge) -> Tensor:
        """The backbone's logits."""
        return knowledge.backbone.logits(sessions.states(knowledge.backbone))
