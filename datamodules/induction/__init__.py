"""Data on which induction heads form."""

from lightning_plugins.datamodules.induction.mixture import InductionMixtureDataModule

__all__ = ["InductionMixtureDataModule"]
