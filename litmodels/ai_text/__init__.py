"""Detection of AI-generated text."""

from lightning_plugins.litmodels.ai_text.detector import AITextDetector
from lightning_plugins.litmodels.ai_text.sequence_classifier import SequenceClassifier
from lightning_plugins.litmodels.ai_text.window_scores import ScanWriter
from lightning_plugins.litmodels.ai_text.zero_shot_detector import ZeroShotDetector

__all__ = ["AITextDetector", "ScanWriter", "SequenceClassifier", "ZeroShotDetector"]
