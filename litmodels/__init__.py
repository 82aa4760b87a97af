"""LightningModules, one folder a task."""

from lightning_plugins.litmodels.ai_text import AITextDetector
from lightning_plugins.litmodels.change_captioning import ChangeCaptioner
from lightning_plugins.litmodels.image import ImageClassifier
from lightning_plugins.litmodels.induction import (
    InContextMarkov,
    InContextRepeats,
    InductionMixture,
    InductionRegression,
)
from lightning_plugins.litmodels.language_model import CausalLM
from lightning_plugins.litmodels.mixture_of_experts import MoERegressor
from lightning_plugins.litmodels.recommendation import (
    InfluencePathPlanner,
    SequentialRecommender,
)

__all__ = [
    "AITextDetector",
    "CausalLM",
    "ChangeCaptioner",
    "ImageClassifier",
    "InContextMarkov",
    "InContextRepeats",
    "InductionMixture",
    "InductionRegression",
    "InfluencePathPlanner",
    "MoERegressor",
    "SequentialRecommender",
]
