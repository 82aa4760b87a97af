"""Planners: each chooses the next item of a path towards a target."""

from lightning_plugins.litmodels.recommendation.planners.baselines import (
    NextItem,
    Popular,
    RandomItems,
)
from lightning_plugins.litmodels.recommendation.planners.constrained_language_model import (
    LanguageModelChoice,
    LanguageModelScore,
    LanguageModelTrie,
)
from lightning_plugins.litmodels.recommendation.planners.language_model import LanguageModel
from lightning_plugins.litmodels.recommendation.planners.planner import (
    Knowledge,
    Planner,
    Sessions,
)
from lightning_plugins.litmodels.recommendation.planners.target_directed import (
    CoOccurrencePath,
    InfluentialBeam,
    InfluentialGreedy,
    InfluentialRecommender,
    Rec2Inf,
    TextBridge,
)

__all__ = [
    "CoOccurrencePath",
    "InfluentialBeam",
    "InfluentialGreedy",
    "InfluentialRecommender",
    "Knowledge",
    "LanguageModel",
    "LanguageModelChoice",
    "LanguageModelScore",
    "LanguageModelTrie",
    "NextItem",
    "Planner",
    "Popular",
    "RandomItems",
    "Rec2Inf",
    "Sessions",
    "TextBridge",
    "default_planners",
]


def default_planners() -> dict[str, Planner]:
    """Return the planners that need no language model, by label."""
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
