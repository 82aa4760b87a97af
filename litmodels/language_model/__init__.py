"""Causal language models."""

from lightning_plugins.litmodels.language_model.causal_lm import CausalLM

__all__ = ["CausalLM"]
