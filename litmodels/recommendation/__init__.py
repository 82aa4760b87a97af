"""Recommendation of the next item, and of paths of items towards a target."""

from lightning_plugins.litmodels.recommendation.influence_path import InfluencePath
from lightning_plugins.litmodels.recommendation.influence_paths import InfluencePathPlanner
from lightning_plugins.litmodels.recommendation.item_text_model import ItemTextModel
from lightning_plugins.litmodels.recommendation.path_report import InfluencePathReport
from lightning_plugins.litmodels.recommendation.recommendation_table import RecommendationTable
from lightning_plugins.litmodels.recommendation.sequential_recommender import SequentialRecommender

__all__ = [
    "InfluencePath",
    "InfluencePathPlanner",
    "InfluencePathReport",
    "ItemTextModel",
    "RecommendationTable",
    "SequentialRecommender",
]
