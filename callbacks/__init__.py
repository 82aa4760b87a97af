"""Lightning callbacks."""

from lightning_plugins.callbacks.exact_resume import ExactResume
from lightning_plugins.callbacks.late_sam import LateSAM

__all__ = ["ExactResume", "LateSAM"]
