"""Optimizers and schedules, and how a LightningModule gets them from YAML."""

from lightning_plugins.optimizers.adam_mini import AdamMini
from lightning_plugins.optimizers.blockwise import (
    Blockwise,
    BlockwiseAdamMini,
    BlockwiseAdamW,
    BlockwiseLion,
)
from lightning_plugins.optimizers.blockwise_schedule import BlockwiseSchedule
from lightning_plugins.optimizers.configuration import build_optimizer, configure_optimizers
from lightning_plugins.optimizers.gradpower import AdamWPower, GradPower, SGDPower, gradpower
from lightning_plugins.optimizers.lion import Lion
from lightning_plugins.optimizers.muon_adamw import MuonAdamW, MuonPower
from lightning_plugins.optimizers.parameter_names import register_names
from lightning_plugins.optimizers.sign_power import sign_power_
from lightning_plugins.optimizers.warmup_cosine import WarmupCosine
from lightning_plugins.optimizers.warmup_stable_decay import WarmupStableDecay

__all__ = [
    "AdamMini",
    "AdamWPower",
    "Blockwise",
    "BlockwiseAdamMini",
    "BlockwiseAdamW",
    "BlockwiseLion",
    "BlockwiseSchedule",
    "GradPower",
    "Lion",
    "MuonAdamW",
    "MuonPower",
    "SGDPower",
    "WarmupCosine",
    "WarmupStableDecay",
    "build_optimizer",
    "configure_optimizers",
    "gradpower",
    "register_names",
    "sign_power_",
]
