"""The claims on the abrupt emergence of induction heads (Wang et al., arXiv 2410.11474)."""

import functools
import json
import math
from typing import TYPE_CHECKING, Any

from lightning_plugins.claims.claim import Cell, Claim, Column, Experiment, Paper, Scale
from lightning_plugins.claims.fingerprints import canonical_json
from lightning_plugins.claims.rules import Equivalence, Superiority

if TYPE_CHECKING:
    from lightning_plugins.callbacks import PhaseDetector

_SEEDS = (0, 1, 2, 3, 4)
_REFERENCE = {"length": 40, "alpha": 1.0, "w_star": 0.49, "sigma_init": 0.01}
_LEARNING_RATE = 0.5
_SETTING = "six-number transformer, Gaussian tokens, L = 40, α* = 1, w* = 0.49, σ = 0.01, batch 512"
_MARKOV = "two attention layers of one head, 8.7k parameters, chains of 3 states, 64 tokens"
_FIGURE = "Fig. 2 and the theorems on dynamics, as abstracts and public reviews describe them"


def paper() -> Paper:
    """The paper's claims as measured on the mixed target, and on chains."""
    return Paper(
        name="induction-heads",
        title="How transformers get rich: approximation and dynamics analysis",
        citation="Wang, Yu, E, Wu; arXiv 2410.11474 (a preprint)",
        experiments=(_second_layer(), _joint(), _markov()),
        claims=(*_order_claims(), *_scaling_claims(), *_markov_claims()),
        columns=(
            Column("moment", "step", ".0f"),
            Column("emergence", "half of the induction head at step", ".0f"),
            Column("scaled_emergence", "… over its predicted scale", ".3f"),
        ),
        next_steps=(
            "lightning-plugins reproduce induction-heads --scale cpu     (5 seeds; half an hour)",
            "lightning-plugins fit --config induction_heads/mixture      (one run beside its ODE)",
            "callbacks=[HeadScores()] in the Trainer of a transformer of yours",
        ),
    )


def _second_layer() -> Experiment:
    """Gradient descent on the second layer, with one thing changed at a time."""
    return Experiment(
        name="second layer",
        arms={
            "4-gram": _mixture(3400, reads="partial_learning_end"),
            "induction head": _mixture(3400, reads="emergence"),
            "its gradient flow": {"flow": True, "overrides": {}},
            "twice the length": _mixture(6600, length=80),
            "σ = 0.0001": _mixture(6200, sigma_init=1e-4),
            "α* = 0.5": _mixture(2000, alpha=0.5),
        },
        scales={
            "smoke": Scale(seeds=(0, 1), only=("4-gram", "induction head", "its gradient flow")),
            "cpu": Scale(seeds=_SEEDS),
        },
        run=run_mixture,
    )


def _joint() -> Experiment:
    """All six numbers at once, by gradient descent and by Adam."""
    adam = {
        "model.init_args.optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.001}}
    }
    joint: dict[str, Any] = {"model.init_args.stage": "joint"}
    return Experiment(
        name="joint",
        arms={
            "4-gram": _mixture(12_000, reads="partial_learning_end", **joint),
            "induction head": _mixture(12_000, reads="emergence", **joint),
            "4-gram, Adam": _mixture(2500, reads="partial_learning_end", **joint, **adam),
            "induction head, Adam": _mixture(2500, reads="emergence", **joint, **adam),
        },
        scales={"cpu": Scale(seeds=_SEEDS)},
        run=run_mixture,
    )


def _markov() -> Experiment:
    """When the model is nearest to the unigram, and when the bigram becomes the nearer one."""
    recipe = {"recipe": "induction_heads/markov"}
    return Experiment(
        name="markov",
        arms={
            "nearest to the unigram": {**recipe, "reads": "nearest"},
            "nearer to the bigram": {**recipe, "reads": "crossing"},
        },
        scales={"smoke": Scale(seeds=(0, 1)), "cpu": Scale(seeds=_SEEDS)},
        run=run_markov,
    )


def _mixture(max_steps: int, reads: str = "emergence", **changes: Any) -> dict[str, Any]:
    """An arm of the mixture recipe; setting changes by name, others by their dotted key."""
    of_model = {"sigma_init"}
    overrides = {
        key if "." in key else f"{'model' if key in of_model else 'data'}.init_args.{key}": value
        for key, value in changes.items()
    }
    setting = {key: value for key, value in changes.items() if key in _REFERENCE}
    return {
        "recipe": "induction_heads/mixture",
        "reads": reads,
        "setting": _REFERENCE | setting,
        "overrides": {"trainer.max_steps": max_steps, "trainer.limit_val_batches": 0} | overrides,
    }


def _order_claims() -> tuple[Claim, ...]:
    return tuple(
        Claim(
            name=f"{words}, the 4-gram is learned before the induction head",
            statement="The 4-gram loss falls to a tenth before k² w1 makes half of its way to w*².",
            paper_figure="partial learning of the 4-gram, a plateau, then the induction head",
            source=_FIGURE,
            experiment=experiment,
            rule=Superiority(
                "moment", arm=f"4-gram{arm}", over=f"induction head{arm}", direction="lower"
            ),
            in_paper_regime=in_regime,
            regime=f"{_SETTING}, {regime}",
        )
        for words, experiment, arm, in_regime, regime in (
            ("layer by layer", "second layer", "", True, "second layer, gradient descent"),
            ("jointly", "joint", "", False, "all numbers at once, gradient descent"),
            ("jointly with Adam", "joint", ", Adam", False, "all numbers at once, Adam"),
        )
    )


def _scaling_claims() -> tuple[Claim, ...]:
    plateau = "plateau of length Θ((1+α*)² L log(1/σ) / w*²)"
    flow = Claim(
        name="the induction head emerges when the gradient flow says",
        statement="The step at which k² reaches half of w*² is that of the ODE within 10 %.",
        paper_figure="the theory is of the flow; no comparison of the two was read",
        source="our closed form of the population losses",
        experiment="second layer",
        rule=Equivalence(
            "emergence",
            arm="induction head",
            to="its gradient flow",
            margin=0.1,
            relative=True,
        ),
        in_paper_regime=True,
        regime=f"{_SETTING}, learning rate {_LEARNING_RATE}",
    )
    scaling = (
        ("the plateau grows linearly in the length", "twice the length", "L = 80 against 40"),
        ("the plateau grows linearly in log(1/σ)", "σ = 0.0001", "σ = 0.0001 against 0.01"),
        ("the plateau grows as (1+α*)²", "α* = 0.5", "α* = 0.5 against 1"),
    )
    return (
        flow,
        *(
            Claim(
                name=name,
                statement="The emergence, divided by (L-2)(1+α*)² log(w*/2σ) / 2w*², is the same "
                "within 15 %.",
                paper_figure=plateau,
                source=_FIGURE,
                experiment="second layer",
                rule=Equivalence(
                    "scaled_emergence", arm=arm, to="induction head", margin=0.15, relative=True
                ),
                in_paper_regime=True,
                regime=f"{_SETTING}, {changed}",
            )
            for name, arm, changed in scaling
        ),
    )


def _markov_claims() -> tuple[Claim, ...]:
    return (
        Claim(
            name="on Markov chains the unigram comes before the bigram",
            statement="The divergence from the in-context unigram has its minimum before the "
            "in-context bigram becomes the nearer one.",
            paper_figure="a unigram plateau, then an abrupt change to the bigram",
            source="Edelman et al., arXiv 2402.11004, as the discrete side of the same transition",
            experiment="markov",
            rule=Superiority(
                "moment",
                arm="nearest to the unigram",
                over="nearer to the bigram",
                direction="lower",
            ),
            in_paper_regime=False,
            regime=_MARKOV,
        ),
    )


def run_mixture(config: dict[str, Any], seed: int) -> Cell:
    """Train one arm, or solve its flow; when what was asked for happened, in optimizer steps."""
    from lightning_plugins.nn.induction import MixtureDynamics, find_phases

    if config.get("flow"):
        setting = dict(_REFERENCE)
        sigma = setting.pop("sigma_init")
        flow = MixtureDynamics(int(setting.pop("length")), **setting).solve(range(2000), sigma)
        match = flow.k**2 / _REFERENCE["w_star"] ** 2
        steps = [1 + time / _LEARNING_RATE for time in flow.times]
        phases = find_phases(steps, list(flow.four_gram_loss), list(match))
        return {"metrics": {"emergence": phases.emergence}}
    detector = _watched_run(config, seed)
    assert detector.phases is not None
    emergence = detector.phases.emergence
    return {
        "metrics": {
            "moment": getattr(detector.phases, config["reads"]),
            "emergence": emergence,
            "scaled_emergence": emergence * _LEARNING_RATE / _scale_of_time(**config["setting"]),
        },
        "series": {"steps": [float(s) for s in detector.steps], **detector.values},
    }


def run_markov(config: dict[str, Any], seed: int) -> Cell:
    """Train on chains; the step of the smallest smoothed divergence, or of the crossing."""
    from lightning_plugins.callbacks.phase_detector import running_median

    detector = _watched_run(config, seed)
    unigram, bigram = (
        running_median(detector.values[f"train/kl_{name}"], 9) for name in ("unigram", "bigram")
    )
    nearest = min(range(len(unigram)), key=unigram.__getitem__)
    pairs = enumerate(zip(unigram, bigram, strict=True))
    crossed = (place for place, (one, other) in pairs if place > 0 and other < one)
    place = nearest if config["reads"] == "nearest" else next(crossed, None)
    return {
        "metrics": {"moment": math.nan if place is None else float(detector.steps[place])},
        "series": {"steps": [float(s) for s in detector.steps], **detector.values},
    }


def _watched_run(config: dict[str, Any], seed: int) -> "PhaseDetector":
    """Train a recipe; arms that read different moments of one run train it once a process."""
    return _watched_run_of(canonical_json({**config, "reads": ""}), seed)


@functools.lru_cache(maxsize=16)
def _watched_run_of(config: str, seed: int) -> "PhaseDetector":
    from lightning_plugins._lightning_compat import callbacks_of
    from lightning_plugins.callbacks import PhaseDetector
    from lightning_plugins.claims.measurements.recipe_run import train_recipe

    trained = train_recipe(json.loads(config), seed)
    (detector,) = [c for c in callbacks_of(trained.trainer) if isinstance(c, PhaseDetector)]
    return detector


def _scale_of_time(length: float, alpha: float, w_star: float, sigma_init: float) -> float:
    from lightning_plugins.nn.induction import MixtureDynamics

    return MixtureDynamics(int(length), alpha, w_star).plateau_estimate(sigma_init)
