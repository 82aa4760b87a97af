"""The claims on late-phase SAM (Zhou et al., ICLR 2025, arXiv 2410.10373), on the digits."""

from typing import TYPE_CHECKING, Any

from lightning_plugins.claims.claim import Cell, Claim, Column, Experiment, Paper, Scale
from lightning_plugins.claims.rules import Equivalence, Recovers, Superiority

if TYPE_CHECKING:
    from lightning_plugins.claims.recipe_run import TrainedRecipe

_DIGITS = "26k-parameter fully connected net, 1000 8x8 digits, 80 epochs, rho 0.1"
_FIGURE_1 = "abstract and Fig. 1: WRN-16-8, CIFAR-10, SGD to epoch 175 of 200, then SAM, 5 seeds"
_SEEDS = (0, 1, 2, 3, 4)


def paper() -> Paper:
    """The paper's claims as measured on the digits."""
    return Paper(
        name="late-sam",
        title="Sharpness-Aware Minimization efficiently selects flatter minima late in training",
        citation="Zhou, Wang, Mao, Li, Yan; ICLR 2025; arXiv 2410.10373",
        experiments=(_switch(), _label_noise(), _schedules()),
        claims=(*_flatness_claims(), *_accuracy_claims(), *_schedule_claims()),
        columns=(
            Column("test_accuracy", "test accuracy %", ".2f"),
            Column("lambda_max", "λ_max", ".3f"),
            Column("seconds", "seconds", ".1f"),
            Column("sam_steps", "SAM steps", ".0f"),
        ),
        next_steps=(
            "lightning-plugins reproduce late-sam --scale cpu     (5 seeds, rivals; minutes)",
            "lightning-plugins fit --config late_sam/digits       (one run; change it by options)",
            "callbacks=[LateSAM(start=0.75, rho=0.05)] in a Trainer of yours",
        ),
    )


def _flatness_claims() -> tuple[Claim, ...]:
    return (
        Claim(
            name="a late switch to SAM ends flatter than SGD",
            statement="SGD, then SAM in the last 30 % of the run, ends at a lower largest "
            "Hessian eigenvalue than SGD.",
            paper_figure="flatter than SGD; no table was read",
            source=_FIGURE_1,
            experiment="switch",
            rule=Superiority("lambda_max", arm="late SAM", over="SGD", direction="lower"),
            in_paper_regime=False,
            regime=_DIGITS,
        ),
        Claim(
            name="and flatter than what the same compute buys otherwise",
            statement="The same against SGD in 1.3 times the epochs with its own full decay, "
            "other late learning rates, and averaged weights.",
            paper_figure="not compared there, as far as was read",
            source="our rivals",
            experiment="switch",
            rule=Superiority(
                "lambda_max",
                arm="late SAM",
                over="SGD",
                direction="lower",
                rivals=("SGD 1.3x longer", "SGD no decay", "SGD long decay", "EMA", "SWA"),
            ),
            in_paper_regime=False,
            regime=_DIGITS,
        ),
        Claim(
            name="a late switch recovers most of SAM's flatness",
            statement="SAM in the last 30 % of the run recovers at least 70 % of the reduction of "
            "the largest Hessian eigenvalue that SAM in the whole run brings.",
            paper_figure="nearly all of it, with SAM in the last 12.5 % of the run",
            source=_FIGURE_1,
            experiment="switch",
            rule=Recovers("lambda_max", arm="late SAM", between=("SGD", "SAM"), share=0.7),
            in_paper_regime=False,
            regime=_DIGITS,
        ),
        Claim(
            name="a late switch ends as flat as SAM",
            statement="SAM in the last 30 % of the run ends within 10 % of the largest Hessian "
            "eigenvalue of SAM in the whole run.",
            paper_figure="nearly as flat, with SAM in the last 12.5 % of the run",
            source=_FIGURE_1,
            experiment="switch",
            rule=Equivalence("lambda_max", arm="late SAM", to="SAM", margin=0.1, relative=True),
            in_paper_regime=False,
            regime=_DIGITS,
        ),
        Claim(
            name="SAM early, then SGD, keeps little of SAM's flatness",
            statement="SAM in the first 70 % of the run, then SGD, gives back at least half of "
            "the reduction of the largest Hessian eigenvalue.",
            paper_figure="little effect of SAM early; a conjecture in the abstract",
            source="abstract",
            experiment="switch",
            rule=Recovers(
                "lambda_max",
                arm="early SAM",
                between=("SAM", "SGD"),
                share=0.5,
                direction="higher",
            ),
            in_paper_regime=False,
            regime=_DIGITS,
        ),
    )


def _accuracy_claims() -> tuple[Claim, ...]:
    return (
        Claim(
            name="a late switch generalizes as well as SAM",
            statement="SAM in the last 30 % of the run reaches the test accuracy of SAM in the "
            "whole run, within half a percentage point.",
            paper_figure="test error nearly that of SAM in the whole run; no table was read",
            source=_FIGURE_1,
            experiment="switch",
            rule=Equivalence("test_accuracy", arm="late SAM", to="SAM", margin=0.5),
            in_paper_regime=False,
            regime=f"{_DIGITS}; every arm is as accurate here, so this says little",
        ),
        Claim(
            name="with noisy labels, a late switch recovers SAM's accuracy",
            statement="With 10 % of the training labels wrong, SAM in the last 30 % of the run "
            "recovers at least 70 % of the test accuracy that SAM in the whole run gains.",
            paper_figure="test error nearly that of SAM in the whole run, with clean labels",
            source=_FIGURE_1,
            experiment="label noise",
            rule=Recovers(
                "test_accuracy",
                arm="late SAM",
                between=("SGD", "SAM"),
                share=0.7,
                direction="higher",
            ),
            in_paper_regime=False,
            regime=f"{_DIGITS}, 10 % label noise, learning rate 0.05",
        ),
    )


def _schedule_claims() -> tuple[Claim, ...]:
    return tuple(
        Claim(
            name=f"{words}, a late switch recovers most of SAM's flatness",
            statement=f"The same {words}: the tail of the run is {tail}.",
            paper_figure="the published schedules end at a constant 0.04 of the initial rate",
            source="released code: learning rate x0.2 at 0.3 and x0.04 at 0.6 of the run",
            experiment="schedules",
            rule=Recovers(
                "lambda_max",
                arm=f"late SAM, {key}",
                between=(f"SGD, {key}", f"SAM, {key}"),
                share=0.7,
            ),
            in_paper_regime=False,
            regime=f"{_DIGITS}, {words}",
        )
        for key, words, tail in (
            ("constant", "at a constant learning rate", "at the full rate"),
            ("steps", "after step decays", "at 0.04 of the rate, long after the last decay"),
        )
    )


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


def _switch() -> Experiment:
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


def _label_noise() -> Experiment:
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


def _schedules() -> Experiment:
    """The tail's place in the learning-rate decay."""
    lr_scheduler = "model__init_args__lr_scheduler"
    steps = {
        "class_path": "torch.optim.lr_scheduler.MultiStepLR",
        "init_args": {"milestones": [24, 48], "gamma": 0.2},
    }
    schedules = {
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


def run_switch(config: dict[str, Any], seed: int) -> Cell:
    """Train one arm; accuracy on the test part, λ_max on the whole training part."""
    from lightning_plugins._lightning_compat import callbacks_of
    from lightning_plugins.callbacks import LateSAM
    from lightning_plugins.claims.recipe_run import train_recipe

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


def _largest_eigenvalue(trained: "TrainedRecipe") -> float:
    """Of the Hessian of the plain cross-entropy over the training part, in eval mode."""
    from torch.utils.data import DataLoader

    from lightning_plugins.curvature import HessianOperator, largest_eigenvalues

    model: Any = trained.model.eval()
    datamodule: Any = trained.datamodule
    batches = [tuple(batch) for batch in DataLoader(datamodule.train_dataset, 1000)]
    operator = HessianOperator(model.loss, model.parameters(), batches)
    return float(largest_eigenvalues(operator, operator.dimension).values[0])
