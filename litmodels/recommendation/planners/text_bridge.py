"""Items whose words lead from the last item over to the target."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_plugins.litmodels.recommendation.planners.planner import (
    Knowledge,
    Planner,
    Sessions,
    best_allowed,
)


class TextBridge(Planner):
    r"""Maximizes :math:`(1 - a) \cos(x_i, x_l) + a \cos(x_i, x_t)` over TF-IDF vectors x of text.

    l is the item taken last, t the target, and a grows linearly to 1 at the end of the path. This
    is what a language model knows of items without knowing who takes them. With ``shortlist`` it
    chooses among the backbone's best and adds the cosine of the backbone's embeddings with the
    target's, so that text and behaviour both count. Ours; no language model is asked.

    Args:
        shortlist: items of the backbone to choose among; None for the whole catalogue.

    Raises:
        ValueError: ``shortlist`` below 1.
    """

    def __init__(self, shortlist: int | None = None) -> None:
        if shortlist is not None and shortlist < 1:
            raise ValueError(f"shortlist={shortlist}: expected at least 1, or None")
        self.shortlist = shortlist

    def preferences(self, sessions: Sessions, knowledge: Knowledge) -> Tensor:
        """The mixture of cosines for each item."""
        vectors = knowledge.text_vectors
        share = (sessions.step + 1) / sessions.length
        to_last = vectors[sessions.last_taken()] @ vectors.T
        bridge = (1 - share) * to_last + share * vectors[sessions.targets] @ vectors.T
        if self.shortlist is None:
            return bridge
        network = knowledge.backbone
        logits = network.logits(sessions.states(network)).cpu()
        listed = best_allowed(logits, sessions.allowed, self.shortlist)
        embeddings = normalize(network.item_embedding.weight.cpu(), dim=1)
        bridge = bridge + embeddings[sessions.targets] @ embeddings.T
        return bridge.masked_fill(~listed, -torch.inf)
