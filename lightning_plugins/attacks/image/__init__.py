"""Attacks on images, and measures of the accuracy that remains under attack."""

from lightning_plugins.attacks.image.auto_attack import auto_attack_accuracy
from lightning_plugins.attacks.image.gradient_attacks import fgsm, pgd
from lightning_plugins.attacks.image.gradient_masking import (
    GradientMasking,
    check_gradient_masking,
)
from lightning_plugins.attacks.image.random_search import random_search
from lightning_plugins.attacks.image.robust_accuracy import RobustAccuracy, robust_accuracy
from lightning_plugins.attacks.image.threat_model import ThreatModel

__all__ = [
    "GradientMasking",
    "RobustAccuracy",
    "ThreatModel",
    "auto_attack_accuracy",
    "check_gradient_masking",
    "fgsm",
    "pgd",
    "random_search",
    "robust_accuracy",
]
