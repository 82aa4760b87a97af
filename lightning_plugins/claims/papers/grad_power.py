"""The claims on GradPower (Jinbo Wang et al., ICML 2026, arXiv 2505.24275), on small models."""

from lightning_plugins.claims.claim import Paper, claims_on
from lightning_plugins.claims.papers.language_models import (
    COLUMNS,
    SETTINGS,
    optimizer,
    published_settings,
    speedup,
    terminal_claims,
    terminal_loss,
    tuned_arm,
)
from lightning_plugins.claims.rules import Superiority

_OPTIMIZERS = {"AdamW": optimizer("AdamW"), "AdamPower": optimizer("AdamWPower", p=1.2)}

_PUBLISHED = {
    "0.04M": "lower at 66M; we did not read the table by size",
    "0.08M": "lower at 0.2B; we did not read the table by size",
    "0.13M": "-0.022 nats at 2B",
    "0.08M WSD": "lower; the gap grows in the stable phase",
    "MoE": "-0.028 nats at 2B",
    "MoE WSD": "lower; the largest gains of all",
}

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
    return Paper(
        name="grad-power",
        title="GradPower: powering gradients for faster language model pre-training",
        citation="Jinbo Wang, Mingze Wang, Zhang, Pei, Wei Wang, Cai, E, Wu; ICML 2026; "
        "arXiv 2505.24275",
        experiments=(
            terminal_loss(arms, smoke_rates={f"{name}, 0.04M": 4e-3 for name in _OPTIMIZERS}),
            speedup({name: (chosen, 4e-3) for name, chosen in _OPTIMIZERS.items()}),
            published_settings(_PAPER_RECIPES, _PAPER_METHODS),
        ),
        claims=(
            *terminal_claims(
                "AdamPower",
                "AdamPower (p = 1.2)",
                _PUBLISHED,
                0.02,
                source="abstract and reading notes of the paper; AdamW tuned, AdamPower at its "
                "rate",
            ),
            *claims_on(
                "speed-up",
                "0.08M, cosine, rate 0.004 for both, fixed on another seed",
                (
                    "fewer steps to a loss than AdamW",
                    "With a schedule of twice the length, AdamW needs more steps to reach the "
                    "terminal loss of AdamPower than to reach its own.",
                    Superiority("speedup", "AdamPower", "AdamW", "higher", (), 0.1),
                    "not reported in the paper; the measure is that of the Blockwise LR paper",
                    "the repository of arXiv 2502.19002, for the measure",
                ),
                ours=("fewer steps to a loss than AdamW",),
            ),
        ),
        columns=COLUMNS,
        next_steps=(
            "lightning-plugins reproduce grad-power --scale cpu    (5 seeds, tuned rates)",
            "lightning-plugins fit --config grad_power/tiny        (one run)",
            "AdamWPower(model.parameters(), lr=1e-3, p=1.2) in your own LightningModule",
        ),
    )
