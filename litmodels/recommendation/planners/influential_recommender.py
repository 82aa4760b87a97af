"""A network that was trained to lead to an objective."""

from torch import Tensor

from lightning_plugins.litmodels.recommendation.planners.planner import (
    Knowledge,
    Planner,
    Sessions,
)
from lightning_plugins.nn.recommendation import InfluentialNetwork
from lightning_plugins.nn.recommendation.item_network import NetworkName
from lightning_plugins.nn.recommendation.sequences import padded


class InfluentialRecommender(Planner):
    """IRN: what the network expects next of a user who ends at the target, greedily.

    Source: Zhu et al., Influential Recommender System, arXiv 2211.10002, section IV-C.

    Args:
        checkpoint: of a ``SequentialRecommender`` with ``network="irn"``; None trains one with
            seed 4 on the data, once, and keeps it in the user's cache.
    """

    needs: NetworkName | None = "irn"

    def __init__(self, checkpoint: str | None = None) -> None:
        self.checkpoint = checkpoint

    def preferences(self, sessions: Sessions, knowledge: Knowledge) -> Tensor:
        """The network's logits, given the target."""
        network = self.network
        assert isinstance(network, InfluentialNetwork)
        device = network.item_embedding.weight.device
        items = padded(sessions.taken, network.max_length, device)
        return network.logits(network.state(items, sessions.targets.to(device)))
