"""LightningModules that learn in context and form induction heads."""

from lightning_plugins.litmodels.induction.markov import InContextMarkov
from lightning_plugins.litmodels.induction.mixture import InductionMixture, InductionRegression
from lightning_plugins.litmodels.induction.repeats import InContextRepeats

__all__ = ["InContextMarkov", "InContextRepeats", "InductionMixture", "InductionRegression"]
