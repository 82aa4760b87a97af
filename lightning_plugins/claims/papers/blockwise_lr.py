"""The claims on Blockwise LR (Wang et al., ICML 2025, arXiv 2502.19002), on small models."""

from lightning_plugins.claims.claim import Claim, Experiment, Paper, claims_on
from lightning_plugins.claims.papers.language_models import (
    COLUMNS,
    REGIME,
    SETTINGS,
    optimizer,
    published_settings,
    speedup,
    terminal_claims,
    terminal_loss,
    tuned_arm,
    with_stretched_warmup,
)
from lightning_plugins.claims.rules import Superiority

# Rates of multiplier 1: the other blocks have 4 to 10 times these.
_BASE_RATES = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3)
# The loss of Muon was still falling at the largest of AdamW's rates.
_MUON_RATES = (4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2)
_BLOCKS = ("embedding", "head", "qk", "vo", "ffn", "norm")
_TENFOLD_ENDS = {block: 10.0 if block in ("embedding", "head") else 1.0 for block in _BLOCKS}

_PUBLISHED = {
    "0.04M": "-0.041 nats at 0.13B",
    "0.08M": "-0.051 nats at 0.25B",
    "0.13M": "-0.056 nats at 0.5B",
    "0.08M WSD": "-0.042 nats at 0.25B",
    "MoE": "not measured in the paper",
}

_PAPER_RECIPES = (
    "gpt2_openwebtext",
    *(f"llama_{size}m_openwebtext" for size in (90, 230, 250, 500, 750, 900, 1100)),
    *(f"llama_{size}m_minipile" for size in (134, 250, 500)),
)


def paper() -> Paper:
    """Return the paper's claims, measured on small language models."""
    return Paper(
        name="blockwise-lr",
        title="The sharpness disparity principle in transformers for accelerating language model "
        "pre-training",
        citation="Wang, Wang, Zhou, Yan, E, Wu; ICML 2025; arXiv 2502.19002",
        experiments=(
            _terminal_loss(),
            speedup(
                {
                    "AdamW": (optimizer("AdamW"), 4e-3),
                    "Blockwise": (optimizer("BlockwiseAdamW"), 1e-3),
                }
            ),
            published_settings(_PAPER_RECIPES, {"AdamW": "", "Blockwise": "+blockwise_lr"}),
        ),
        claims=(
            *terminal_claims(
                "Blockwise",
                "Blockwise AdamW",
                _PUBLISHED,
                0.04,
                source="figures 1 and 3 of the paper's repository",
                ours=("MoE",),
                regime=f"multiplier of the head as of the embedding: 10, {REGIME}",
            ),
            *_further_claims(),
        ),
        columns=COLUMNS,
        next_steps=(
            "lightning-plugins reproduce blockwise-lr --scale cpu    (5 seeds, tuned rates)",
            "lightning-plugins fit --config blockwise_lr/tiny        (one run)",
            "BlockwiseAdamW(model.named_parameters(), lr=1e-3) in your own LightningModule",
        ),
    )


def _terminal_loss() -> Experiment:
    """Every optimizer at its best rate, for each size, schedule and kind of model."""
    adamw, blockwise = optimizer("AdamW"), optimizer("BlockwiseAdamW")
    arms = {}
    for label in _PUBLISHED:
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


def _further_claims() -> tuple[Claim, ...]:
    blockwise, adamw = "Blockwise, 0.08M", "AdamW, 0.08M"
    rivals = ("Muon, 0.08M", "embedding and head 10x, 0.08M")
    return (
        *claims_on(
            "terminal loss",
            f"LLaMA of 0.08M, cosine, {REGIME}",
            (
                "and lower than Muon, and than a rate for embedding and head alone",
                "The same against Muon (on hidden matrices, AdamW for the rest) and against AdamW "
                "with ten times the rate for embedding and head only; both are tuned as often.",
                Superiority("test_loss", blockwise, adamw, "lower", rivals, 0.04),
                "not compared in the parts of the paper that we read",
                "our rivals",
            ),
            (
                "a lower terminal loss with the released code's defaults",
                "The same with multiplier 1 for the output head and with warm-ups stretched by "
                "the multipliers.",
                Superiority("test_loss", "Blockwise as released, 0.08M", adamw, "lower", (), 0.04),
                "the head's multiplier in the paper's runs is not known",
                "defaults of the released code",
            ),
            ours=(
                "and lower than Muon, and than a rate for embedding and head alone",
                "a lower terminal loss with the released code's defaults",
            ),
        ),
        *claims_on(
            "speed-up",
            "0.08M, cosine, rates 0.004 and 0.001, fixed on another seed",
            (
                "fewer steps to a loss than AdamW",
                "With a schedule of twice the length, AdamW needs more steps to reach the terminal "
                "loss of Blockwise LR than to reach its own.",
                Superiority("speedup", "Blockwise", "AdamW", "higher", (), 0.9),
                "1.9 to 2.3 times",
                "figures 1 and 3 of the paper's repository",
            ),
        ),
    )
