"""Tasks on which induction heads form."""

from lightning_plugins.litmodels.induction.mixture import InductionMixture

__all__ = ["InductionMixture"]
