"""The claims on late-phase SAM (Zhou et al., ICLR 2025, arXiv 2410.10373), on the digits."""

from typing import Any

from lightning_plugins.claims.claim import Experiment, Paper, Scale
from lightning_plugins.claims.claim_tables import read_paper
from lightning_plugins.claims.measurements.late_sam import run_adversarial, run_switch, run_valley

_SEEDS = (0, 1, 2, 3, 4)


def paper() -> Paper:
    """Return the paper's claims, measured on the digits."""
    return read_paper(__file__, _switch(), _label_noise(), _schedules(), _valley(), _adversarial())


def _switch() -> Experiment:
    """SAM in different parts of the run, and other uses of the same compute."""
    decay = "model__init_args__lr_scheduler__init_args__decay"
    recipes = {"SGD": "image/digits", "late SAM": "late_sam/digits", "SAM": "late_sam/digits_sam"}
    swa = _averaging("StochasticWeightAveraging", swa_lrs=0.1, swa_epoch_start=0.7)
    arms = {
        **{arm: {"recipe": recipe} for arm, recipe in recipes.items()},
        "late SAM 10 %": _digits(_sam(0.9)),
        "late SAM 12.5 %": _digits(_sam(0.875)),  # the paper's tail, epochs 175 to 200
        "late SAM 20 %": _digits(_sam(0.8)),
        "late SAM 50 %": _digits(_sam(0.5)),
        "early SAM": _digits(_sam(0, 0.7)),
        "SGD 1.3x longer": _digits(trainer__max_epochs=104),
        "SGD no decay": _digits(**{decay: 0.0}),
        "SGD long decay": _digits(**{decay: 0.5}),
        "EMA": _digits(_averaging("EMAWeightAveraging", decay=0.99)),
        "SWA": _digits(swa),
    }
    published = {
        arm: {"recipe": recipe.replace("digits", "cifar10_wrn16_8")}
        for arm, recipe in recipes.items()
    }
    short = {"overrides": {"trainer.max_epochs": 20}}
    scales = {
        "smoke": Scale((0, 1, 2), only=tuple(recipes), arms=dict.fromkeys(recipes, short)),
        "cpu": Scale(_SEEDS),
        "paper": Scale(_SEEDS, only=tuple(recipes), arms=published),
    }
    return Experiment("switch", arms, scales, run_switch)


def _label_noise() -> Experiment:
    """Wrong labels: with clean ones the accuracy on digits is saturated."""
    noisy = {
        "data__init_args__label_noise": 0.1,
        "model__init_args__optimizer__init_args__lr": 0.05,
    }
    arms = {
        "SGD": _digits(**noisy),
        "late SAM": _digits(_sam(0.7), **noisy),
        "SAM": _digits(_sam(0), **noisy),
        "early SAM": _digits(_sam(0, 0.7), **noisy),
    }
    return Experiment("label noise", arms, {"cpu": Scale(_SEEDS)}, run_switch)


def _schedules() -> Experiment:
    """Late SAM under two other learning-rate schedules."""
    lr_scheduler = "model__init_args__lr_scheduler"
    steps = {
        "class_path": "torch.optim.lr_scheduler.MultiStepLR",
        "init_args": {"milestones": [24, 48], "gamma": 0.2},
    }
    schedules: dict[str, dict[str, Any]] = {
        "constant": {f"{lr_scheduler}__init_args__decay": 0.0},
        "steps": {lr_scheduler: steps},
    }
    callbacks = {"SGD": (), "late SAM": (_sam(0.7),), "SAM": (_sam(0),)}
    arms = {
        f"{arm}, {key}": _digits(*chosen, **overrides)
        for key, overrides in schedules.items()
        for arm, chosen in callbacks.items()
    }
    return Experiment("schedules", arms, {"cpu": Scale(_SEEDS)}, run_switch)


def _valley() -> Experiment:
    """The loss between the weights at the switch and the final weights."""
    arms = {
        "SGD": {"recipe": "image/digits", "switch": 0.7},
        "late SAM": {"recipe": "late_sam/digits", "switch": 0.7},
        "another seed": {"recipe": "image/digits", "switch": 0.7, "other_seed": 1000},
    }
    return Experiment("valley", arms, {"cpu": Scale(_SEEDS)}, run_valley)


def _adversarial() -> Experiment:
    """Adversarial training early, late, in the whole run, and not at all."""
    evaluation = _callback("AdversarialEvaluation", eps=0.1)
    early = _callback("LateAdversarialTraining", start=0, end=0.7, eps=0.1)
    plain = {"model__init_args__label_smoothing": 0.0}
    arms = {
        "plain": _digits(evaluation, **plain),
        "early AT": _digits(early, evaluation, **plain),
        "late AT": {"recipe": "late_at/digits"},
        "AT": {"recipe": "late_at/digits_at"},
    }
    return Experiment("adversarial", arms, {"cpu": Scale(_SEEDS)}, run_adversarial)


def _digits(*callbacks: dict[str, Any], **overrides: Any) -> dict[str, Any]:
    """An arm: the digits recipe with added callbacks and ``overrides`` (``__`` for a dot)."""
    changes = {key.replace("__", "."): value for key, value in overrides.items()}
    if callbacks:
        changes["trainer.callbacks+"] = list(callbacks)
    return {"recipe": "image/digits", "overrides": changes}


def _callback(
    name: str, package: str = "lightning_plugins.callbacks", **init_args: Any
) -> dict[str, Any]:
    return {"class_path": f"{package}.{name}", "init_args": init_args}


def _sam(start: float, end: float | None = None) -> dict[str, Any]:
    return _callback("LateSAM", start=start, end=end, rho=0.1)


def _averaging(name: str, **init_args: Any) -> dict[str, Any]:
    return _callback(name, "lightning.pytorch.callbacks", **init_args)
