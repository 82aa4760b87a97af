"""Optimizers, learning-rate schedules, and their configuration from YAML."""

from typing import TYPE_CHECKING

from lightning_plugins._lazy import lazy_exports

if TYPE_CHECKING:
    from .adam_mini import AdamMini as AdamMini
    from .blockwise import Blockwise as Blockwise
    from .blockwise import BlockwiseAdamMini as BlockwiseAdamMini
    from .blockwise import BlockwiseAdamW as BlockwiseAdamW
    from .blockwise import BlockwiseLion as BlockwiseLion
    from .configuration import build_optimizer as build_optimizer
    from .configuration import configure_optimizers as configure_optimizers
    from .grad_power import AdamWPower as AdamWPower
    from .grad_power import GradPower as GradPower
    from .grad_power import SGDPower as SGDPower
    from .grad_power import gradpower as gradpower
    from .lion import Lion as Lion
    from .muon_adamw import MuonAdamW as MuonAdamW
    from .muon_adamw import MuonPower as MuonPower
    from .parameter_names import register_names as register_names
    from .schedules import BlockwiseSchedule as BlockwiseSchedule
    from .schedules import WarmupCosine as WarmupCosine
    from .schedules import WarmupStableDecay as WarmupStableDecay
    from .sign_power import sign_power_ as sign_power_
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "AdamMini": "adam_mini",
            "AdamWPower": "grad_power",
            "Blockwise": "blockwise",
            "BlockwiseAdamMini": "blockwise",
            "BlockwiseAdamW": "blockwise",
            "BlockwiseLion": "blockwise",
            "BlockwiseSchedule": "schedules",
            "GradPower": "grad_power",
            "Lion": "lion",
            "MuonAdamW": "muon_adamw",
            "MuonPower": "muon_adamw",
            "SGDPower": "grad_power",
            "WarmupCosine": "schedules",
            "WarmupStableDecay": "schedules",
            "build_optimizer": "configuration",
            "configure_optimizers": "configuration",
            "gradpower": "grad_power",
            "register_names": "parameter_names",
            "sign_power_": "sign_power",
        },
    )
