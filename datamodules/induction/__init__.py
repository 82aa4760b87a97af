"""Data that makes induction heads form."""

from lightning_plugins.datamodules.induction.markov import MarkovChainDataModule
from lightning_plugins.datamodules.induction.mixture import InductionMixtureDataModule
from lightning_plugins.datamodules.induction.repeats import RepeatedSequenceDataModule

__all__ = ["InductionMixtureDataModule", "MarkovChainDataModule", "RepeatedSequenceDataModule"]
