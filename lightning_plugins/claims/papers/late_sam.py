"""The claims on late-phase SAM (Zhou et al., ICLR 2025, arXiv 2410.10373), on the digits."""

from typing import Any

from lightning_plugins.claims.claim import Claim, Column, Experiment, Paper, Scale, claims_on
from lightning_plugins.claims.measurements.late_sam import run_adversarial, run_switch, run_valley
from lightning_plugins.claims.rules import Equivalence, Recovers, Superiority

_SEEDS = (0, 1, 2, 3, 4)
_DIGITS = "26k-parameter fully connected net, 1000 8x8 digits, 80 epochs, rho 0.1"
_FIGURE_1 = "abstract and Fig. 1: WRN-16-8, CIFAR-10, SGD to epoch 175 of 200, then SAM, 5 seeds"
_NO_TABLE = "we read no table"


def paper() -> Paper:
    """Return the paper's claims, measured on the digits."""
    return Paper(
        name="late-sam",
        title="Sharpness-Aware Minimization efficiently selects flatter minima late in training",
        citation="Zhou, Wang, Mao, Li, Yan; ICLR 2025; arXiv 2410.10373",
        experiments=(_switch(), _label_noise(), _schedules(), _valley(), _adversarial()),
        claims=(
            *_flatness_claims(),
            *_accuracy_claims(),
            *_schedule_claims(),
            *_valley_claims(),
            *_adversarial_claims(),
        ),
        columns=(
            Column("test_accuracy", "test accuracy %", ".2f"),
            Column("robust_accuracy", "robust %", ".2f"),
            Column("lambda_max", "λ_max", ".3f"),
            Column("rise", "rise", ".3f"),
            Column("barrier", "barrier", ".3f"),
            Column("seconds", "seconds", ".1f"),
            Column("sam_steps", "SAM steps", ".0f"),
        ),
        next_steps=(
            "lightning-plugins reproduce late-sam --scale cpu     (5 seeds, rivals; minutes)",
            "lightning-plugins fit --config late_sam/digits       (one run; change it by options)",
            "callbacks=[LateSAM(start=0.75, rho=0.05)] in your own Trainer",
        ),
    )


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
    scales = {
        "smoke": Scale((0, 1, 2), only=tuple(recipes)),
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


_FLATTER = 0.15  # of the largest Hessian eigenvalue, which is about 1.7 with SGD
_NATS = 0.01


def _flatness_claims() -> tuple[Claim, ...]:
    rivals = ("SGD 1.3x longer", "SGD no decay", "SGD long decay", "EMA", "SWA")
    return claims_on(
        "switch",
        _DIGITS,
        (
            "a late switch to SAM ends flatter than SGD",
            "SGD, then SAM in the last 30 % of the run, ends at a lower largest Hessian eigenvalue "
            "than SGD.",
            Superiority("lambda_max", "late SAM", "SGD", "lower", smallest_effect=_FLATTER),
            f"flatter than SGD; {_NO_TABLE}",
            _FIGURE_1,
        ),
        (
            "and flatter than what the same compute buys otherwise",
            "The same against SGD with 1.3 times the epochs and a full decay of its own, other "
            "late learning rates, and averaged weights.",
            Superiority("lambda_max", "late SAM", "SGD", "lower", rivals, _FLATTER),
            "not compared in the parts of the paper that we read",
            "our rivals",
        ),
        (
            "a late switch recovers most of SAM's flatness",
            "SAM in the last 30 % of the run recovers at least 70 % of the reduction of the "
            "largest Hessian eigenvalue that SAM in the whole run achieves.",
            Recovers("lambda_max", "late SAM", ("SGD", "SAM"), share=0.7),
            "nearly all of it, with SAM in the last 12.5 % of the run",
            _FIGURE_1,
        ),
        (
            "a late switch ends as flat as SAM",
            "SAM in the last 30 % of the run ends within 10 % of the largest Hessian eigenvalue of "
            "SAM in the whole run.",
            Equivalence("lambda_max", "late SAM", "SAM", margin=0.1, relative=True),
            "nearly as flat, with SAM in the last 12.5 % of the run",
            _FIGURE_1,
        ),
        (
            "SAM early, then SGD, keeps little of SAM's flatness",
            "SAM in the first 70 % of the run, then SGD, loses at least half of the reduction of "
            "the largest Hessian eigenvalue.",
            Recovers("lambda_max", "early SAM", ("SAM", "SGD"), share=0.5, direction="higher"),
            "little effect of SAM early; a conjecture in the abstract",
            "abstract",
        ),
        ours=("and flatter than what the same compute buys otherwise",),
    )


def _accuracy_claims() -> tuple[Claim, ...]:
    return (
        *claims_on(
            "switch",
            f"{_DIGITS}; all arms are equally accurate here, so this is weak evidence",
            (
                "a late switch generalizes as well as SAM",
                "SAM in the last 30 % of the run reaches the test accuracy of SAM in the whole "
                "run, within half a percentage point.",
                Equivalence("test_accuracy", "late SAM", "SAM", margin=0.5),
                f"test error nearly that of SAM in the whole run; {_NO_TABLE}",
                _FIGURE_1,
            ),
        ),
        *claims_on(
            "label noise",
            f"{_DIGITS}, 10 % label noise, learning rate 0.05",
            (
                "with noisy labels, a late switch recovers SAM's accuracy",
                "With 10 % of the training labels wrong, SAM in the last 30 % of the run recovers "
                "at least 70 % of the test accuracy that SAM in the whole run gains.",
                Recovers("test_accuracy", "late SAM", ("SGD", "SAM"), 0.7, "higher"),
                "test error nearly that of SAM in the whole run, with clean labels",
                _FIGURE_1,
            ),
            ours=("with noisy labels, a late switch recovers SAM's accuracy",),
        ),
    )


def _schedule_claims() -> tuple[Claim, ...]:
    return tuple(
        claim
        for key, words, tail in (
            ("constant", "at a constant learning rate", "has the full rate"),
            ("steps", "after step decays", "has 0.04 of the rate, long after the last decay"),
        )
        for claim in claims_on(
            "schedules",
            f"{_DIGITS}, {words}",
            (
                f"{words}, a late switch recovers most of SAM's flatness",
                f"The same {words}: the last part of the run {tail}.",
                Recovers("lambda_max", f"late SAM, {key}", (f"SGD, {key}", f"SAM, {key}"), 0.7),
                "the published schedules end at a constant 0.04 of the initial rate",
                "released code: learning rate x0.2 at 0.3 and x0.04 at 0.6 of the run",
            ),
        )
    )


def _valley_claims() -> tuple[Claim, ...]:
    return claims_on(
        "valley",
        _DIGITS,
        (
            "after the switch SAM leaves the minimum of SGD",
            "In the epoch after the switch the training loss rises more than with SGD.",
            Superiority("rise", "late SAM", "SGD", "higher", smallest_effect=_NATS),
            "exponential escape from the minimum that SGD found; here, a rise",
            "abstract: the first of two phases",
        ),
        (
            "and converges within the same valley",
            "The barrier of the training loss on the line from the weights at the switch to the "
            "final weights is within 0.01 nats of the barrier when SGD continues.",
            Equivalence("barrier", "late SAM", "SGD", margin=_NATS),
            "fast convergence in the same valley; here, no barrier",
            "abstract: the second of two phases; released interpolation script",
        ),
        (
            "which the measure can tell from another valley",
            "That barrier is lower than the barrier to the final weights of an independent run.",
            Superiority("barrier", "late SAM", "another seed", "lower", smallest_effect=_NATS),
            "a control of ours",
            "ours",
        ),
        ours=("which the measure can tell from another valley",),
    )


def _adversarial_claims() -> tuple[Claim, ...]:
    figure = f"an extension of the finding, named in the abstract; {_NO_TABLE}"
    source = "abstract; released code: PGD-10, L-infinity, 4/255"
    return claims_on(
        "adversarial",
        "26k-parameter net, digits, 80 epochs, L-infinity 0.1, PGD-50 with 10 restarts",
        (
            "late adversarial training is as robust as all of it",
            "Adversarial training in the last 30 % of the run reaches the accuracy under PGD of "
            "adversarial training in the whole run, within two percentage points.",
            Equivalence("robust_accuracy", "late AT", "AT", margin=2.0),
            figure,
            source,
        ),
        (
            "late adversarial training recovers most of the robustness",
            "Adversarial training in the last 30 % of the run recovers at least 70 % of the "
            "accuracy under PGD that adversarial training in the whole run gains.",
            Recovers("robust_accuracy", "late AT", ("plain", "AT"), 0.7, "higher"),
            figure,
            source,
        ),
    )
