"""Greedy choice by what an item gains towards the target times the chance that it is taken."""

from torch import Tensor
from torch.nn.functional import normalize

from lightning_plugins.litmodels.recommendation.planners.planner import (
    Knowledge,
    Planner,
    Sessions,
)


class InfluentialGreedy(Planner):
    r"""IPG: the item that maximizes :math:`\sigma(u^T v_i) (\cos(v_i, v_t) - \cos(u, v_t))`.

    u is the backbone's state, v its item embeddings, t the target.

    Source: Bi et al., Proactive Recommendation with Iterative Preference Guidance,
    arXiv 2403.07571, section 3, as in its released code.
    """

    def preferences(self, sessions: Sessions, knowledge: Knowledge) -> Tensor:
        """The product above for each item."""
        network = knowledge.backbone
        states = sessions.states(network)
        items = normalize(network.item_embedding.weight, dim=1)
        targets = items[sessions.targets.to(items.device)]
        gain = targets @ items.T - (normalize(states, dim=1) * targets).sum(1, keepdim=True)
        return network.logits(states).sigmoid() * gain
