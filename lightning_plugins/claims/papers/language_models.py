"""The experiments that the papers on Blockwise LR and GradPower share: small language models.

Each paper compares an optimizer with AdamW in three experiments: terminal loss at the best of
several learning rates, speed-up at a fixed rate, and the published settings as command lines.
"""

from typing import Any

from lightning_plugins.claims.claim import Experiment, Scale
from lightning_plugins.claims.measurements.tuned_run import run_speedup, run_tuned

Arm = dict[str, Any]

SEEDS = (0, 1, 2, 3, 4)
RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
TUNING_SEED = 1000

SETTINGS: dict[str, Arm] = {
    "0.04M": {"size": "0.04M"},
    "0.08M": {"size": "0.08M"},
    "0.13M": {"size": "0.13M"},
    "0.08M WSD": {"size": "0.08M", "shape": "wsd_thirds"},
    "MoE": {"is_moe": True},
    "MoE WSD": {"is_moe": True, "shape": "wsd_thirds"},
}
"""Label -> options of :func:`tuned_arm`; by default a dense LLaMA with a cosine schedule."""

_HIDDEN_SIZES = {"0.04M": 32, "0.08M": 48, "0.13M": 64}
_MOE_HIDDEN_SIZE = 32
_OPTIMIZER = "model.init_args.optimizer"
_SCHEDULE = "model.init_args.lr_scheduler"


def optimizer(name: str, **init_args: Any) -> Arm:
    """Return AdamW's published settings for ``torch.optim.AdamW`` or a class of this package."""
    package = "torch.optim" if name == "AdamW" else "lightning_plugins.optimizers"
    settings = {"betas": [0.9, 0.95], "weight_decay": 0.1, **init_args}
    return {"class_path": f"{package}.{name}", "init_args": settings}


def tuned_arm(
    optimizer: Arm,
    learning_rates: tuple[float, ...] = RATES,
    size: str = "0.08M",
    shape: str = "cosine",
    is_moe: bool = False,
) -> Arm:
    """Return a configuration for ``run_tuned``.

    A run has 450 steps of 1 024 bytes of Shakespeare. The warm-up takes 5 % of them, and every arm
    ends at the same learning rate, 1e-4, for every tried rate. A dense model has 2 layers, 2 heads,
    an untied head, and a SwiGLU of 2.7 times the hidden size. The mixture of experts has 0.07M
    parameters and chooses 2 of 4 experts.
    """
    overrides = {
        "trainer.max_steps": 450,
        "trainer.val_check_interval": 450,
        "trainer.limit_val_batches": 100,
        "trainer.limit_test_batches": 100,
        "trainer.num_sanity_val_steps": 0,
        "model.init_args.context_length": 64,
        "data.init_args.context_length": 64,
        "data.init_args.batch_size": 16,
        "model.init_args.architecture": "qwen2_moe" if is_moe else "llama",
        "model.init_args.config": _moe() if is_moe else _dense(_HIDDEN_SIZES[size]),
        _OPTIMIZER: optimizer,
        _SCHEDULE: {
            "class_path": "lightning_plugins.optimizers.BlockwiseSchedule",
            "init_args": {"shape": shape, "warmup": 0.05, "floor": 1e-4},
        },
    }
    return {
        "recipe": "language_model/tiny",
        "overrides": overrides,
        "learning_rates": list(learning_rates),
        "tuning_seed": TUNING_SEED,
    }


def with_stretched_warmup(arm: Arm) -> Arm:
    """Return the arm with each block's warm-up stretched by the block's multiplier."""
    overrides = {**arm["overrides"], f"{_SCHEDULE}.init_args.stretch_warmup": True}
    return {**arm, "overrides": overrides}


def terminal_loss(arms: dict[str, Arm], smoke_rates: dict[str, float]) -> Experiment:
    """Compare arms at their best rate.

    The ``smoke`` scale only checks that the arms of ``smoke_rates`` run: 150 steps at one learning
    rate per arm, two seeds.
    """
    steps = {"trainer.max_steps": 150, "trainer.val_check_interval": 150}
    changes = {
        name: {"learning_rates": [rate], "overrides": steps} for name, rate in smoke_rates.items()
    }
    smoke = Scale(seeds=(0, 1), only=tuple(changes), arms=changes)
    return Experiment("terminal loss", arms, {"smoke": smoke, "cpu": Scale(SEEDS)}, run_tuned)


def speedup(optimizers: dict[str, tuple[Arm, float]]) -> Experiment:
    """Compare optimizers at learning rates that were fixed on another seed before.

    Args:
        optimizers: Name of the arm -> optimizer and learning rate; the first is the baseline.
    """
    arms = {}
    for name, (chosen, rate) in optimizers.items():
        arm = tuned_arm(chosen)
        overrides = {**arm["overrides"], f"{_OPTIMIZER}.init_args.lr": rate}
        arms[name] = {"recipe": arm["recipe"], "overrides": overrides}
    baseline = next(iter(arms.values()))["overrides"]
    arms = {name: {**arm, "baseline": baseline} for name, arm in arms.items()}
    return Experiment("speed-up", arms, {"cpu": Scale(SEEDS)}, run_speedup)


def published_settings(recipes: tuple[str, ...], methods: dict[str, str]) -> Experiment:
    """Compare every method (name -> recipe overlays) on every recipe of the paper's size."""
    arms = {
        f"{method}, {name}": {"recipe": f"language_model/{name}{overlays}"}
        for name in recipes
        for method, overlays in methods.items()
    }
    return Experiment("the paper's settings", arms, {"paper": Scale(SEEDS)}, run_tuned)


def _dense(hidden_size: int) -> Arm:
    return {
        "hidden_size": hidden_size,
        "intermediate_size": hidden_size * 8 // 3,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "tie_word_embeddings": False,
    }


def _moe() -> Arm:
    return {
        **_dense(_MOE_HIDDEN_SIZE),
        "num_key_value_heads": 2,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 44,
        "shared_expert_intermediate_size": 44,
    }
