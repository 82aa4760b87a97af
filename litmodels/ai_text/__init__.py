"""Detection of AI-generated text."""

from lightning_plugins.litmodels.ai_text.zero_shot import ZeroShotDetector

__all__ = ["ZeroShotDetector"]
