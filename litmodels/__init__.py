"""LightningModules, one folder a task."""

from typing import TYPE_CHECKING

from lightning_plugins._lazy import lazy_exports

if TYPE_CHECKING:
    from .ai_text import AITextDetector as AITextDetector
    from .change_captioning import ChangeCaptioner as ChangeCaptioner
    from .image import ImageClassifier as ImageClassifier
    from .induction import InContextMarkov as InContextMarkov
    from .induction import InContextRepeats as InContextRepeats
    from .induction import InductionMixture as InductionMixture
    from .induction import InductionRegression as InductionRegression
    from .language_model import CausalLM as CausalLM
    from .mixture_of_experts import MoERegressor as MoERegressor
    from .recommendation import InfluencePathPlanner as InfluencePathPlanner
    from .recommendation import SequentialRecommender as SequentialRecommender
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "AITextDetector": "ai_text",
            "CausalLM": "language_model",
            "ChangeCaptioner": "change_captioning",
            "ImageClassifier": "image",
            "InContextMarkov": "induction",
            "InContextRepeats": "induction",
            "InductionMixture": "induction",
            "InductionRegression": "induction",
            "InfluencePathPlanner": "recommendation",
            "MoERegressor": "mixture_of_experts",
            "SequentialRecommender": "recommendation",
        },
    )
