"""The claims on GradPower (arXiv 2505.24275), on small language models."""

from typing import Any

from lightning_plugins.claims.claim import Claim, Column, Experiment, Paper, Scale
from lightning_plugins.claims.measurements.tuned_run import run_speedup, run_tuned
from lightning_plugins.claims.papers import language_models as small
from lightning_plugins.claims.rules import Superiority

_SEEDS = (0, 1, 2, 3, 4)
_RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
_REGIME = "bytes of Shakespeare, 450 steps of 1 024 tokens, rates tuned for each seed and arm"

_SETTINGS: dict[str, dict[str, Any]] = {
    "0.04M": {"size": "0.04M"},
    "0.08M": {"size": "0.08M"},
    "0.13M": {"size": "0.13M"},
    "0.08M WSD": {"size": "0.08M", "shape": "wsd_thirds"},
    "MoE": {"is_moe": True},
    "MoE WSD": {"is_moe": True, "shape": "wsd_thirds"},
}
"""Label -> what ``small.arm`` is told; dense LLaMA with a cosine where nothing is said."""

_PUBLISHED = {
    "0.04M": "lower at 66M; the table by size was not read",
    "0.08M": "lower at 0.2B; the table by size was not read",
    "0.13M": "-0.022 nats at 2B",
    "0.08M WSD": "lower; the gap grows in the stable phase",
    "MoE": "-0.028 nats at 2B",
    "MoE WSD": "lower; the largest gains of all",
}

_PAPER_RECIPES = (
    *(f"llama_{size}_c4" for size in ("66m", "200m", "400m", "1b", "2b")),
    *(f"qwen2_moe_{size}_c4" for size in ("1b", "2b")),
)


def paper() -> Paper:
    """The paper's claims as measured on small language models."""
    return Paper(
        name="grad-power",
        title="GradPower: powering gradients for faster language model pre-training",
        citation="Wang, Wang, Zhou, Yan, E, Wu; arXiv 2505.24275, ICML 2026",
        experiments=(_terminal_loss(), _speedup(), _published_settings()),
        claims=(*_terminal_claims(), _speedup_claim()),
        columns=(
            Column("test_loss", "test loss", ".4f"),
            Column("bits_per_byte", "bits/byte", ".3f"),
            Column("learning_rate", "best rate", ".2g"),
            Column("trials", "trials", ".1f"),
            Column("speedup", "steps ratio", ".2f"),
            Column("seconds", "seconds", ".0f"),
        ),
        next_steps=(
            "lightning-plugins reproduce grad-power --scale cpu    (5 seeds, tuned rates)",
            "lightning-plugins fit --config grad_power/tiny        (one run)",
            "AdamWPower(model.parameters(), lr=1e-3, p=1.2) in a LightningModule of yours",
        ),
    )


def _terminal_loss() -> Experiment:
    """Both optimizers at their best rate, for every size, schedule and kind of model."""
    optimizers = {
        "AdamW": small.optimizer("AdamW"),
        "AdamPower": small.optimizer("AdamWPower", p=1.2),
    }
    arms = {
        f"{name}, {label}": small.arm(optimizer, _RATES, **setting)
        for label, setting in _SETTINGS.items()
        for name, optimizer in optimizers.items()
    }
    smoke = {f"{name}, 0.04M": 4e-3 for name in optimizers}
    scales = {"smoke": small.short(arms, smoke), "cpu": Scale(seeds=_SEEDS)}
    return Experiment("terminal loss", arms, scales, run_tuned)


def _speedup() -> Experiment:
    """At rates that were fixed on another seed before."""
    adamw = small.arm(small.optimizer("AdamW"), _RATES)
    power = small.arm(small.optimizer("AdamWPower", p=1.2), _RATES)
    arms = {
        "AdamW": small.at_fixed_rate(adamw, 4e-3),
        "AdamPower": small.at_fixed_rate(power, 4e-3),
    }
    baseline = arms["AdamW"]["overrides"]
    return Experiment(
        name="speed-up",
        arms={name: {**config, "baseline": baseline} for name, config in arms.items()},
        scales={"cpu": Scale(seeds=_SEEDS)},
        run=run_speedup,
    )


def _published_settings() -> Experiment:
    """The paper's data and kinds of model, under both of its schedules."""
    return small.published(
        run_tuned,
        _SEEDS,
        _PAPER_RECIPES,
        {
            "AdamW": "",
            "AdamPower": "+grad_power",
            "AdamW, WSD": "+wsd",
            "AdamPower, WSD": "+grad_power+wsd",
        },
    )


def _terminal_claims() -> tuple[Claim, ...]:
    return tuple(
        Claim(
            name=f"a lower terminal loss than AdamW, {label}",
            statement=f"Best-tuned AdamPower (p = 1.2) ends at a lower test loss than best-tuned "
            f"AdamW: {small.described(setting)}.",
            paper_figure=_PUBLISHED[label],
            source="abstract and reading notes of the paper; AdamW tuned, AdamPower at its rate",
            experiment="terminal loss",
            rule=Superiority(
                "test_loss", arm=f"AdamPower, {label}", over=f"AdamW, {label}", direction="lower"
            ),
            in_paper_regime=False,
            regime=f"{small.described(setting)}, {_REGIME}",
        )
        for label, setting in _SETTINGS.items()
    )


def _speedup_claim() -> Claim:
    return Claim(
        name="fewer steps to a loss than AdamW",
        statement="AdamW needs more times AdamPower's steps to reach AdamPower's terminal loss "
        "than to reach its own, with a schedule of twice the length.",
        paper_figure="not reported there; the measure is that of the Blockwise LR paper",
        source="arXiv 2502.19002, section 5, for the measure",
        experiment="speed-up",
        rule=Superiority("speedup", arm="AdamPower", over="AdamW", direction="higher"),
        in_paper_regime=False,
        regime="0.08M, cosine, rate 0.004 for both, fixed on another seed",
    )
