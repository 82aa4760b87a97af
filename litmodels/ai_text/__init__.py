"""Detection of AI-generated text."""

from lightning_plugins.litmodels.ai_text.detector import AITextDetector
from lightning_plugins.litmodels.ai_text.scan_writer import ScanWriter
from lightning_plugins.litmodels.ai_text.zero_shot import ZeroShotDetector

__all__ = ["AITextDetector", "ScanWriter", "ZeroShotDetector"]
