"""The claims on Blockwise LR (Wang et al., ICML 2025, arXiv 2502.19002), on small models."""

from typing import Any

from lightning_plugins.claims.claim import Claim, Column, Experiment, Paper, Scale
from lightning_plugins.claims.measurements.tuned_run import run_speedup, run_tuned
from lightning_plugins.claims.papers import language_models as small
from lightning_plugins.claims.rules import Superiority

_SEEDS = (0, 1, 2, 3, 4)
_RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
# Of multiplier 1: the other blocks are at 4 to 10 times these.
_BASE_RATES = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3)
# Muon was still improving at the top of AdamW's grid.
_MUON_RATES = (4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2)
_REGIME = "bytes of Shakespeare, 450 steps of 1 024 tokens, rates tuned for each seed and arm"
_BLOCKS = ("embedding", "head", "qk", "vo", "ffn", "norm")
_PER_TYPE = {block: 10.0 if block in ("embedding", "head") else 1.0 for block in _BLOCKS}

_SETTINGS: dict[str, dict[str, Any]] = {
    "0.04M": {"size": "0.04M"},
    "0.08M": {"size": "0.08M"},
    "0.13M": {"size": "0.13M"},
    "0.08M WSD": {"size": "0.08M", "shape": "wsd_thirds"},
    "MoE": {"is_moe": True},
}
"""Label -> what ``small.arm`` is told; dense LLaMA with a cosine where nothing is said."""

_PUBLISHED = {
    "0.04M": "-0.041 nats at 0.13B",
    "0.08M": "-0.051 nats at 0.25B",
    "0.13M": "-0.056 nats at 0.5B",
    "0.08M WSD": "-0.042 nats at 0.25B",
    "MoE": "not measured there",
}

_PAPER_RECIPES = (
    "gpt2_openwebtext",
    *(f"llama_{size}m_openwebtext" for size in (90, 230, 250, 500, 750, 900, 1100)),
    *(f"llama_{size}m_minipile" for size in (134, 250, 500)),
)


def paper() -> Paper:
    """The paper's claims as measured on small language models."""
    return Paper(
        name="blockwise-lr",
        title="The sharpness disparity principle in transformers for accelerating language model "
        "pre-training",
        citation="Wang, Wang, Zhou, Yan, E, Wu; ICML 2025; arXiv 2502.19002",
        experiments=(_terminal_loss(), _speedup(), _published_settings()),
        claims=(*_terminal_claims(), _rivals_claim(), _as_released_claim(), _speedup_claim()),
        columns=(
            Column("test_loss", "test loss", ".4f"),
            Column("bits_per_byte", "bits/byte", ".3f"),
            Column("learning_rate", "best rate", ".2g"),
            Column("trials", "trials", ".1f"),
            Column("speedup", "steps ratio", ".2f"),
            Column("seconds", "seconds", ".0f"),
        ),
        next_steps=(
            "lightning-plugins reproduce blockwise-lr --scale cpu    (5 seeds, tuned rates)",
            "lightning-plugins fit --config blockwise_lr/tiny        (one run)",
            "BlockwiseAdamW(model.named_parameters(), lr=1e-3) in a LightningModule of yours",
        ),
    )


def _terminal_loss() -> Experiment:
    """Every optimizer at its best rate, for every size, schedule and kind of model."""
    adamw = small.optimizer("AdamW")
    blockwise = small.optimizer("BlockwiseAdamW")
    arms = {}
    for label, setting in _SETTINGS.items():
        arms[f"AdamW, {label}"] = small.arm(adamw, _RATES, **setting)
        arms[f"Blockwise, {label}"] = small.arm(blockwise, _BASE_RATES, **setting)
    arms["Muon, 0.08M"] = small.arm(small.optimizer("MuonAdamW"), _MUON_RATES)
    per_type = small.optimizer("BlockwiseAdamW", multipliers=_PER_TYPE)
    arms["embedding and head 10x, 0.08M"] = small.arm(per_type, _BASE_RATES)
    as_released = small.optimizer("BlockwiseAdamW", multipliers={"head": 1.0})
    arms["Blockwise as released, 0.08M"] = small.with_stretched_warmup(
        small.arm(as_released, _BASE_RATES)
    )
    smoke = {"AdamW, 0.04M": 4e-3, "Blockwise, 0.04M": 1e-3}
    scales = {"smoke": small.short(arms, smoke), "cpu": Scale(seeds=_SEEDS)}
    return Experiment("terminal loss", arms, scales, run_tuned)


def _speedup() -> Experiment:
    """At rates that were fixed on another seed before."""
    adamw = small.at_fixed_rate(small.arm(small.optimizer("AdamW"), _RATES), 4e-3)
    blockwise = small.arm(small.optimizer("BlockwiseAdamW"), _BASE_RATES)
    arms = {"AdamW": adamw, "Blockwise": small.at_fixed_rate(blockwise, 1e-3)}
    return Experiment(
        name="speed-up",
        arms={name: {**config, "baseline": adamw["overrides"]} for name, config in arms.items()},
        scales={"cpu": Scale(seeds=_SEEDS)},
        run=run_speedup,
    )


def _published_settings() -> Experiment:
    """The paper's models and data; the recipes say which shapes and lengths are published."""
    return small.published(
        run_tuned, _SEEDS, _PAPER_RECIPES, {"AdamW": "", "Blockwise": "+blockwise_lr"}
    )


def _terminal_claims() -> tuple[Claim, ...]:
    return tuple(
        Claim(
            name=f"a lower terminal loss than AdamW, {label}",
            statement=f"Best-tuned Blockwise AdamW ends at a lower test loss than best-tuned "
            f"AdamW: {small.described(setting)}.",
            paper_figure=_PUBLISHED[label],
            source="figures 1 and 3 of the paper's repository",
            experiment="terminal loss",
            rule=Superiority(
                "test_loss", arm=f"Blockwise, {label}", over=f"AdamW, {label}", direction="lower"
            ),
            in_paper_regime=False,
            regime=f"{small.described(setting)}, head as the embeddings 10x, {_REGIME}",
        )
        for label, setting in _SETTINGS.items()
    )


def _rivals_claim() -> Claim:
    return Claim(
        name="and lower than Muon, and than a rate for embedding and head alone",
        statement="The same against Muon (hidden matrices; AdamW for the rest) and against AdamW "
        "with only embedding and head at ten times the rate, each tuned as often.",
        paper_figure="not compared there, as far as was read",
        source="our rivals",
        experiment="terminal loss",
        rule=Superiority(
            "test_loss",
            arm="Blockwise, 0.08M",
            over="AdamW, 0.08M",
            direction="lower",
            rivals=("Muon, 0.08M", "embedding and head 10x, 0.08M"),
        ),
        in_paper_regime=False,
        regime=f"LLaMA of 0.08M, cosine, {_REGIME}",
    )


def _as_released_claim() -> Claim:
    return Claim(
        name="a lower terminal loss with the released code's defaults",
        statement="The same with an output head at multiplier 1 and warm-ups stretched by the "
        "multipliers.",
        paper_figure="the head's multiplier in the paper's runs is not known",
        source="defaults of the released code",
        experiment="terminal loss",
        rule=Superiority(
            "test_loss",
            arm="Blockwise as released, 0.08M",
            over="AdamW, 0.08M",
            direction="lower",
        ),
        in_paper_regime=False,
        regime=f"LLaMA of 0.08M, cosine, {_REGIME}",
    )


def _speedup_claim() -> Claim:
    return Claim(
        name="fewer steps to a loss than AdamW",
        statement="AdamW needs more times Blockwise LR's steps to reach its terminal loss than to "
        "reach its own, with a schedule of twice the length.",
        paper_figure="1.9 to 2.3 times",
        source="figures 1 and 3 of the paper's repository",
        experiment="speed-up",
        rule=Superiority("speedup", arm="Blockwise", over="AdamW", direction="higher"),
        in_paper_regime=False,
        regime="0.08M, cosine, rates 0.004 and 0.001, fixed on another seed",
    )
