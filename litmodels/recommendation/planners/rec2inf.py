"""A recommender's list, from which the item nearest to the target is taken."""

import torch
from torch import Tensor

from lightning_plugins.litmodels.recommendation.planners.planner import (
    Knowledge,
    Planner,
    Sessions,
    best_allowed,
)


class Rec2Inf(Planner):
    """Of the backbone's ``k`` best items the one whose embedding is most like the target's.

    Source: Zhu et al., arXiv 2211.10002, section V-A; k = 50 and the inner product as in the
    released code of Bi et al., arXiv 2403.07571.

    Args:
        k: length of the backbone's list.

    Raises:
        ValueError: ``k`` below 1.
    """

    def __init__(self, k: int = 50) -> None:
        if k < 1:
            raise ValueError(f"k={k}: expected at least 1")
        self.k = k

    def preferences(self, sessions: Sessions, knowledge: Knowledge) -> Tensor:
        """Inner products with the target's embedding, minus infinity outside the list."""
        network = knowledge.backbone
        logits = network.logits(sessions.states(network)).cpu()
        listed = best_allowed(logits, sessions.allowed, self.k)
        embeddings = network.item_embedding.weight.cpu()
        likeness = embeddings[sessions.targets] @ embeddings.T
        return likeness.masked_fill(~listed, -torch.inf)
