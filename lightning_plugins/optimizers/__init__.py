"""Optimizers and schedules, and how a LightningModule gets them from YAML."""

from lightning_plugins.optimizers.configuration import build_optimizer, configure_optimizers
from lightning_plugins.optimizers.warmup_stable_decay import WarmupStableDecay

__all__ = ["WarmupStableDecay", "build_optimizer", "configure_optimizers"]
