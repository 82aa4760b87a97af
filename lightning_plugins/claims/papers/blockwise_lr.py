"""The claims on Blockwise LR (Wang et al., ICML 2025, arXiv 2502.19002), on small models."""

from lightning_plugins.claims.claim import Experiment, Paper
from lightning_plugins.claims.claim_tables import read_paper
from lightning_plugins.claims.papers.language_models import (
    SETTINGS,
    optimizer,
    published_settings,
    speedup,
    terminal_loss,
    tuned_arm,
    with_stretched_warmup,
)

# Rates of multiplier 1: the other blocks have 4 to 10 times these.
_BASE_RATES = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3)
# The loss of Muon was still falling at the largest of AdamW's rates.
_MUON_RATES = (4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2)
_BLOCKS = ("embedding", "head", "qk", "vo", "ffn", "norm")
_TENFOLD_ENDS = {block: 10.0 if block in ("embedding", "head") else 1.0 for block in _BLOCKS}

_SETTINGS = ("0.04M", "0.08M", "0.13M", "0.08M WSD", "MoE")

_PAPER_RECIPES = (
    "gpt2_openwebtext",
    *(f"llama_{size}m_openwebtext" for size in (90, 230, 250, 500, 750, 900, 1100)),
    *(f"llama_{size}m_minipile" for size in (134, 250, 500)),
)


def paper() -> Paper:
    """Return the paper's claims, measured on small language models."""
    return read_paper(
        __file__,
        _terminal_loss(),
        speedup(
            {
                "AdamW": (optimizer("AdamW"), 4e-3),
                "Blockwise": (optimizer("BlockwiseAdamW"), 1e-3),
            }
        ),
        published_settings(_PAPER_RECIPES, {"AdamW": "", "Blockwise": "+blockwise_lr"}),
    )


def _terminal_loss() -> Experiment:
    """Every optimizer at its best rate, for each size, schedule and kind of model."""
    adamw, blockwise = optimizer("AdamW"), optimizer("BlockwiseAdamW")
    arms = {}
    for label in _SETTINGS:
        arms[f"AdamW, {label}"] = tuned_arm(adamw, **SETTINGS[label])
        arms[f"Blockwise, {label}"] = tuned_arm(blockwise, _BASE_RATES, **SETTINGS[label])
    tenfold_ends = optimizer("BlockwiseAdamW", multipliers=_TENFOLD_ENDS)
    as_released = optimizer("BlockwiseAdamW", multipliers={"head": 1.0})
    arms |= {
        "Muon, 0.08M": tuned_arm(optimizer("MuonAdamW"), _MUON_RATES),
        "embedding and head 10x, 0.08M": tuned_arm(tenfold_ends, _BASE_RATES),
        "Blockwise as released, 0.08M": with_stretched_warmup(tuned_arm(as_released, _BASE_RATES)),
    }
    return terminal_loss(arms, smoke_rates={"AdamW, 0.04M": 4e-3, "Blockwise, 0.04M": 1e-3})
