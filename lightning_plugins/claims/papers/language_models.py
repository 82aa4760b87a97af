"""The language models, optimizers and schedules that the claims on optimizers are measured with."""

from collections.abc import Callable, Iterable
from typing import Any

from lightning_plugins.claims.claim import Cell, Experiment, Scale

_OPTIMIZER = "model.init_args.optimizer"
_SCHEDULE = "model.init_args.lr_scheduler"

SIZES = {"0.04M": 32, "0.08M": 48, "0.13M": 64}
"""Label (parameters) -> hidden size; 2 layers, 2 heads, untied head, SwiGLU of 2.7 times that."""

_MOE_HIDDEN_SIZE = 32


def arm(
    optimizer: dict[str, Any],
    learning_rates: tuple[float, ...],
    size: str = "0.08M",
    shape: str = "cosine",
    is_moe: bool = False,
) -> dict[str, Any]:
    """A configuration for ``run_tuned``.

    450 steps of 1 024 bytes of Shakespeare; warm-up over 5 % of them; every arm and rate ends at
    the same learning rate, 1e-4. The mixture of experts has 4 experts, 2 chosen, and 0.07M.
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
        "model.init_args.config": _moe() if is_moe else _dense(SIZES[size]),
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
    }


def with_stretched_warmup(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of ``arm`` with each block's warm-up as long as its multiplier says."""
    overrides = {**config["overrides"], f"{_SCHEDULE}.init_args.stretch_warmup": True}
    return {**config, "overrides": overrides}


def described(setting: dict[str, Any]) -> str:
    """The model and schedule of a setting of ``arm``, in words."""
    kind = f"LLaMA of {setting.get('size')}"
    if setting.get("is_moe"):
        kind = "Qwen2-MoE of 0.07M"
    return f"{kind} parameters, {'WSD' if 'shape' in setting else 'cosine'}"


def at_fixed_rate(config: dict[str, Any], learning_rate: float) -> dict[str, Any]:
    """The configuration of ``arm`` at one rate, for ``run_speedup``."""
    overrides = {**config["overrides"], f"{_OPTIMIZER}.init_args.lr": learning_rate}
    return {"recipe": config["recipe"], "overrides": overrides}


def short(arms: dict[str, dict[str, Any]], learning_rates: dict[str, float]) -> Scale:
    """The scale that only shows that the arms run: 150 steps at one rate each, two seeds."""
    steps = {"trainer.max_steps": 150, "trainer.val_check_interval": 150}
    changes = {
        name: {"learning_rates": [rate], "overrides": steps}
        for name, rate in learning_rates.items()
        if name in arms
    }
    return Scale(seeds=(0, 1), only=tuple(changes), arms=changes)


def optimizer(name: str, **init_args: Any) -> dict[str, Any]:
    """AdamW's published settings in this or another class of ours."""
    package = "torch.optim" if name == "AdamW" else "lightning_plugins.optimizers"
    settings = {"betas": [0.9, 0.95], "weight_decay": 0.1, **init_args}
    return {"class_path": f"{package}.{name}", "init_args": settings}


def _dense(hidden_size: int) -> dict[str, Any]:
    return {
        "hidden_size": hidden_size,
        "intermediate_size": hidden_size * 8 // 3,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "tie_word_embeddings": False,
    }


def _moe() -> dict[str, Any]:
    return {
        **_dense(_MOE_HIDDEN_SIZE),
        "num_key_value_heads": 2,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 44,
        "shared_expert_intermediate_size": 44,
    }


def published(
    run: Callable[[dict[str, Any], int], Cell],
    seeds: tuple[int, ...],
    recipes: Iterable[str],
    methods: dict[str, str],
) -> Experiment:
    """The same comparison at the papers' sizes: every method, as overlays, on every recipe."""
    arms = {
        f"{method}, {name}": {"recipe": f"language_model/{name}{overlays}"}
        for name in recipes
        for method, overlays in methods.items()
    }
    return Experiment("the paper's settings", arms, {"paper": Scale(seeds=seeds)}, run)
