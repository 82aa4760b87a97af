"""The planners of every comparison."""

from lightning_plugins.litmodels.recommendation.planners.co_occurrence_path import (
    CoOccurrencePath,
)
from lightning_plugins.litmodels.recommendation.planners.influential_greedy import (
    InfluentialGreedy,
)
from lightning_plugins.litmodels.recommendation.planners.influential_recommender import (
    InfluentialRecommender,
)
from lightning_plugins.litmodels.recommendation.planners.next_item import NextItem
from lightning_plugins.litmodels.recommendation.planners.planner import Planner
from lightning_plugins.litmodels.recommendation.planners.popular import Popular
from lightning_plugins.litmodels.recommendation.planners.random_items import RandomItems
from lightning_plugins.litmodels.recommendation.planners.rec2inf import Rec2Inf
from lightning_plugins.litmodels.recommendation.planners.text_bridge import TextBridge


def default_planners() -> dict[str, Planner]:
    """Those that need no language model, by label."""
    return {
        "random": RandomItems(),
        "popular": Popular(),
        "next item": NextItem(),
        "rec2inf": Rec2Inf(),
        "walk": CoOccurrencePath(),
        "irn": InfluentialRecommender(),
        "ipg": InfluentialGreedy(),
        "text": TextBridge(),
        "text of 200": TextBridge(shortlist=200),
    }
