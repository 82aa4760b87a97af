"""Causal language models."""

from lightning_plugins.litmodels.language_model.causal_lm import CausalLM
from lightning_plugins.litmodels.language_model.expert_balancing import ExpertBalancing
from lightning_plugins.litmodels.language_model.generated_texts import GeneratedTexts
from lightning_plugins.litmodels.language_model.generation import TextScore

__all__ = ["CausalLM", "ExpertBalancing", "GeneratedTexts", "TextScore"]
