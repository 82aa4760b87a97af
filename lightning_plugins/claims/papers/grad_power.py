"""The claims on GradPower (Jinbo Wang et al., ICML 2026, arXiv 2505.24275), on small models."""

from lightning_plugins.claims.claim import Paper
from lightning_plugins.claims.claim_tables import read_paper
from lightning_plugins.claims.papers.language_models import (
    SETTINGS,
    optimizer,
    published_settings,
    speedup,
    terminal_loss,
    tuned_arm,
)

_OPTIMIZERS = {"AdamW": optimizer("AdamW"), "AdamPower": optimizer("AdamWPower", p=1.2)}


_PAPER_RECIPES = (
    *(f"llama_{size}_c4" for size in ("66m", "200m", "400m", "1b", "2b")),
    *(f"qwen2_moe_{size}_c4" for size in ("1b", "2b")),
)
_PAPER_METHODS = {
    "AdamW": "",
    "AdamPower": "+grad_power",
    "AdamW, WSD": "+wsd",
    "AdamPower, WSD": "+grad_power+wsd",
}


def paper() -> Paper:
    """Return the paper's claims, measured on small language models."""
    arms = {
        f"{name}, {label}": tuned_arm(chosen, **setting)
        for label, setting in SETTINGS.items()
        for name, chosen in _OPTIMIZERS.items()
    }
    return read_paper(
        __file__,
        terminal_loss(arms, smoke_rates={f"{name}, 0.04M": 4e-3 for name in _OPTIMIZERS}),
        speedup({name: (chosen, 4e-3) for name, chosen in _OPTIMIZERS.items()}),
        published_settings(_PAPER_RECIPES, _PAPER_METHODS),
    )
