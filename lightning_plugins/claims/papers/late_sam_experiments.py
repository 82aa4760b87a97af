"""The experiments behind the claims on late-phase SAM: arms, scales, and what one run measures."""

from typing import TYPE_CHECKING, Any

from lightning_plugins.claims.claim import Cell, Experiment, Scale

if TYPE_CHECKING:
    from lightning_plugins.claims.measurements.recipe_run import TrainedRecipe

_SEEDS = (0, 1, 2, 3, 4)


def _sam(start: float, end: float | None = None) -> dict[str, Any]:
    init_args = {"start": start, "end": end, "rho": 0.1}
    return {"class_path": "lightning_plugins.callbacks.LateSAM", "init_args": init_args}


def _digits(*callbacks: dict[str, Any], **overrides: Any) -> dict[str, Any]:
    """An arm: the digits recipe with further callbacks and ``overrides`` (``__`` for a dot)."""
    changes = {key.replace("__", "."): value for key, value in overrides.items()}
    if callbacks:
        changes["trainer.callbacks+"] = list(callbacks)
    return {"recipe": "image/digits", "overrides": changes}


def _averaging(name: str, **init_args: Any) -> dict[str, Any]:
    return {"class_path": f"lightning.pytorch.callbacks.{name}", "init_args": init_args}


def switch() -> Experiment:
    """Where in the run SAM stands, and what else the same compute could buy."""
    decay = "model__init_args__lr_scheduler__init_args__decay"
    recipes = {"SGD": "image/digits", "late SAM": "late_sam/digits", "SAM": "late_sam/digits_sam"}
    at_paper_scale = {
        arm: name.replace("digits", "cifar10_wrn16_8") for arm, name in recipes.items()
    }
    return Experiment(
        name="switch",
        arms={
            **{arm: {"recipe": recipe} for arm, recipe in recipes.items()},
            "late SAM 10 %": _digits(_sam(0.9)),
            "late SAM 20 %": _digits(_sam(0.8)),
            "late SAM 50 %": _digits(_sam(0.5)),
            "early SAM": _digits(_sam(0, 0.7)),
            "SGD 1.3x longer": _digits(trainer__max_epochs=104),
            "SGD no decay": _digits(**{decay: 0.0}),
            "SGD long decay": _digits(**{decay: 0.5}),
            "EMA": _digits(_averaging("EMAWeightAveraging", decay=0.99)),
            "SWA": _digits(
                _averaging("StochasticWeightAveraging", swa_lrs=0.1, swa_epoch_start=0.7)
            ),
        },
        scales={
            "smoke": Scale(seeds=(0, 1, 2), only=tuple(recipes)),
            "cpu": Scale(seeds=_SEEDS),
            "paper": Scale(
                seeds=_SEEDS,
                only=tuple(recipes),
                arms={arm: {"recipe": recipe} for arm, recipe in at_paper_scale.items()},
            ),
        },
        run=run_switch,
    )


def label_noise() -> Experiment:
    """Clean digits saturate in accuracy; with wrong labels there is something to gain."""
    noisy = {
        "data__init_args__label_noise": 0.1,
        "model__init_args__optimizer__init_args__lr": 0.05,
    }
    return Experiment(
        name="label noise",
        arms={
            "SGD": _digits(**noisy),
            "late SAM": _digits(_sam(0.7), **noisy),
            "SAM": _digits(_sam(0), **noisy),
            "early SAM": _digits(_sam(0, 0.7), **noisy),
        },
        scales={"cpu": Scale(seeds=_SEEDS)},
        run=run_switch,
    )


def schedules() -> Experiment:
    """The tail's place in the learning-rate decay."""
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
    return Experiment(
        name="schedules",
        arms={
            f"{arm}, {key}": _digits(*chosen, **overrides)
            for key, overrides in schedules.items()
            for arm, chosen in callbacks.items()
        },
        scales={"cpu": Scale(seeds=_SEEDS)},
        run=run_switch,
    )


def valley() -> Experiment:
    """What happens after the switch, seen from the weights at it."""
    return Experiment(
        name="valley",
        arms={
            "SGD": {"recipe": "image/digits", "switch": 0.7},
            "late SAM": {"recipe": "late_sam/digits", "switch": 0.7},
            "another seed": {"recipe": "image/digits", "switch": 0.7, "other_seed": 1000},
        },
        scales={"cpu": Scale(seeds=_SEEDS)},
        run=run_valley,
    )


def adversarial() -> Experiment:
    """Adversarial training late, in the whole run, and not at all."""
    evaluation = {
        "class_path": "lightning_plugins.callbacks.AdversarialEvaluation",
        "init_args": {"eps": 0.1},
    }
    early = {
        "class_path": "lightning_plugins.callbacks.LateAdversarialTraining",
        "init_args": {"start": 0, "end": 0.7, "eps": 0.1},
    }
    plain = {"model__init_args__label_smoothing": 0.0}
    return Experiment(
        name="adversarial",
        arms={
            "plain": _digits(evaluation, **plain),
            "early AT": _digits(early, evaluation, **plain),
            "late AT": {"recipe": "late_at/digits"},
            "AT": {"recipe": "late_at/digits_at"},
        },
        scales={"cpu": Scale(seeds=_SEEDS)},
        run=run_adversarial,
    )


def run_switch(config: dict[str, Any], seed: int) -> Cell:
    """Train one arm; accuracy on the test part, λ_max on the whole training part."""
    from lightning_plugins._lightning_compat import callbacks_of
    from lightning_plugins.callbacks import LateSAM
    from lightning_plugins.claims.measurements.recipe_run import train_recipe

    trained = train_recipe(config, seed)
    callbacks = callbacks_of(trained.trainer)
    sam_steps = [c.sam_steps for c in callbacks if isinstance(c, LateSAM)]
    return {
        "metrics": {
            "test_accuracy": 100 * trained.test_metrics["test/accuracy"],
            "lambda_max": _largest_eigenvalue(trained),
            "seconds": trained.fit_seconds,
            "sam_steps": float(sum(sam_steps)),
        }
    }


def run_valley(config: dict[str, Any], seed: int) -> Cell:
    """Loss barrier from the weights at the switch to those at the end, and the rise after it.

    With ``other_seed`` the end is that of an independent run. ``rise`` is the mean training loss at
    the unperturbed weights in the epoch after the switch minus that in the epoch before.
    """
    from lightning_plugins.claims.measurements.recipe_run import train_recipe
    from lightning_plugins.claims.measurements.recording_callbacks import SwitchWatch
    from lightning_plugins.curvature import interpolate

    watch = SwitchWatch(config["switch"])
    trained = train_recipe(config, seed, [watch])
    if "other_seed" in config:
        trained = train_recipe(config, seed + config["other_seed"])
    model: Any = trained.model
    line = interpolate(
        model, watch.weights, model.state_dict(), model.loss, _training_batches(trained)
    )
    return {"metrics": {"barrier": line.barrier, "rise": watch.rise}}


def _largest_eigenvalue(trained: "TrainedRecipe") -> float:
    """Of the Hessian of the plain cross-entropy over the training part, in eval mode."""
    from lightning_plugins.curvature import HessianOperator, largest_eigenvalues

    model: Any = trained.model.eval()
    operator = HessianOperator(model.loss, model.parameters(), _training_batches(trained))
    return float(largest_eigenvalues(operator, operator.dimension).values[0])


def _training_batches(trained: "TrainedRecipe") -> list[tuple[Any, ...]]:
    from torch.utils.data import DataLoader

    datamodule: Any = trained.datamodule
    return [tuple(batch) for batch in DataLoader(datamodule.train_dataset, 1000)]


def run_adversarial(config: dict[str, Any], seed: int) -> Cell:
    """Train one arm; accuracy on the test part, as it is and under attack."""
    from lightning_plugins.claims.measurements.recipe_run import train_recipe

    trained = train_recipe(config, seed)
    return {
        "metrics": {
            "test_accuracy": 100 * trained.test_metrics["test/accuracy"],
            "robust_accuracy": 100 * trained.test_metrics["robust/accuracy"],
            "seconds": trained.fit_seconds,
        }
    }
