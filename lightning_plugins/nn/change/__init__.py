"""The difference-aware integration module of CCExpert (arXiv 2411.11360)."""

from lightning_plugins.nn.change.difference_aware import DifferenceAwareIntegration

__all__ = ["DifferenceAwareIntegration"]
