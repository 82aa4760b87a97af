"""Who chooses the next item of a path towards a target: one planner a file."""

from lightning_plugins.litmodels.recommendation.planners.co_occurrence_path import (
    CoOccurrencePath,
)
from lightning_plugins.litmodels.recommendation.planners.default import default_planners
from lightning_plugins.litmodels.recommendation.planners.influential_greedy import (
    InfluentialGreedy,
)
from lightning_plugins.litmodels.recommendation.planners.influential_recommender import (
    InfluentialRecommender,
)
from lightning_plugins.litmodels.recommendation.planners.language_model import LanguageModel
from lightning_plugins.litmodels.recommendation.planners.language_model_choice import (
    LanguageModelChoice,
)
from lightning_plugins.litmodels.recommendation.planners.language_model_score import (
    LanguageModelScore,
)
from lightning_plugins.litmodels.recommendation.planners.language_model_trie import (
    LanguageModelTrie,
)
from lightning_plugins.litmodels.recommendation.planners.next_item import NextItem
from lightning_plugins.litmodels.recommendation.planners.planner import (
    Knowledge,
    Planner,
    Sessions,
)
from lightning_plugins.litmodels.recommendation.planners.popular import Popular
from lightning_plugins.litmodels.recommendation.planners.random_items import RandomItems
from lightning_plugins.litmodels.recommendation.planners.rec2inf import Rec2Inf
from lightning_plugins.litmodels.recommendation.planners.text_bridge import TextBridge

__all__ = [
    "CoOccurrencePath",
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
