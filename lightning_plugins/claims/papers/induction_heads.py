"""The claims on the abrupt emergence of induction heads (Wang et al., arXiv 2410.11474)."""

from typing import Any

from lightning_plugins.claims.claim import Claim, Column, Experiment, Paper, Scale, claims_on
from lightning_plugins.claims.measurements.induction_heads import (
    LEARNING_RATE,
    REFERENCE,
    run_markov,
    run_mixture,
)
from lightning_plugins.claims.rules import Equivalence, Superiority

_SEEDS = (0, 1, 2, 3, 4)
_SETTING = "six-number transformer, Gaussian tokens, L = 40, α* = 1, w* = 0.49, σ = 0.01, batch 512"
_FIGURE = "Fig. 2 and the theorems on dynamics, as abstracts and public reviews describe them"


def paper() -> Paper:
    """Return the paper's claims, measured on the mixed target and on Markov chains."""
    return Paper(
        name="induction-heads",
        title="How transformers get rich: approximation and dynamics analysis",
        citation="Wang, Yu, E, Wu; arXiv 2410.11474 (a preprint)",
        experiments=(_second_layer(), _joint(), _markov()),
        claims=(*_order_claims(), *_scaling_claims(), *_markov_claims()),
        columns=(
            Column("moment", "step", ".0f"),
            Column("emergence", "half of the induction head at step", ".0f"),
            Column("scaled_emergence", "divided by its predicted scale", ".3f"),
        ),
        next_steps=(
            "lightning-plugins reproduce induction-heads --scale cpu     (5 seeds; half an hour)",
            "lightning-plugins fit --config induction_heads/mixture      (one run, with its ODE)",
            "callbacks=[HeadScores()] in the Trainer of your own transformer",
        ),
    )


def _second_layer() -> Experiment:
    """Gradient descent on the second layer, with one setting changed at a time."""
    arms = {
        "4-gram": _mixture(3400, reads="partial_learning_end"),
        "induction head": _mixture(3400, reads="emergence"),
        "its gradient flow": {"flow": True, "overrides": {}},
        "twice the length": _mixture(6600, length=80),
        "σ = 0.0001": _mixture(6200, sigma_init=1e-4),
        "α* = 0.5": _mixture(2000, alpha=0.5),
    }
    smoke = Scale((0, 1), only=("4-gram", "induction head", "its gradient flow"))
    return Experiment("second layer", arms, {"smoke": smoke, "cpu": Scale(_SEEDS)}, run_mixture)


def _joint() -> Experiment:
    """All six numbers at the same time, by gradient descent and by Adam."""
    adam = {
        "model.init_args.optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.001}}
    }
    joint: dict[str, Any] = {"model.init_args.stage": "joint"}
    arms = {
        "4-gram": _mixture(12_000, reads="partial_learning_end", **joint),
        "induction head": _mixture(12_000, reads="emergence", **joint),
        "4-gram, Adam": _mixture(2500, reads="partial_learning_end", **joint, **adam),
        "induction head, Adam": _mixture(2500, reads="emergence", **joint, **adam),
    }
    return Experiment("joint", arms, {"cpu": Scale(_SEEDS)}, run_mixture)


def _markov() -> Experiment:
    """The step closest to the unigram, and the step from which the bigram is closer."""
    recipe = {"recipe": "induction_heads/markov"}
    arms = {
        "nearest to the unigram": {**recipe, "reads": "nearest"},
        "nearer to the bigram": {**recipe, "reads": "crossing"},
    }
    return Experiment("markov", arms, {"smoke": Scale((0, 1)), "cpu": Scale(_SEEDS)}, run_markov)


def _mixture(max_steps: int, reads: str = "emergence", **changes: Any) -> dict[str, Any]:
    """An arm of the mixture recipe; ``changes`` are settings by name or by their dotted key."""
    of_model = {"sigma_init"}
    overrides = {
        key if "." in key else f"{'model' if key in of_model else 'data'}.init_args.{key}": value
        for key, value in changes.items()
    }
    setting = {key: value for key, value in changes.items() if key in REFERENCE}
    return {
        "recipe": "induction_heads/mixture",
        "reads": reads,
        "setting": REFERENCE | setting,
        "overrides": {"trainer.max_steps": max_steps, "trainer.limit_val_batches": 0} | overrides,
    }


_STEPS = 100.0  # of thousands


def _order_claims() -> tuple[Claim, ...]:
    return tuple(
        claim
        for words, experiment, arm, regime in (
            ("layer by layer", "second layer", "", "second layer, gradient descent"),
            ("jointly", "joint", "", "all numbers at the same time, gradient descent"),
            ("jointly with Adam", "joint", ", Adam", "all numbers at the same time, Adam"),
        )
        for claim in claims_on(
            experiment,
            f"{_SETTING}, {regime}",
            (
                f"{words}, the 4-gram is learned before the induction head",
                "The 4-gram loss falls to a tenth before k² w1 reaches half of w*².",
                Superiority("moment", f"4-gram{arm}", f"induction head{arm}", "lower", (), _STEPS),
                "partial learning of the 4-gram, a plateau, then the induction head",
                _FIGURE,
            ),
        )
    )


def _scaling_claims() -> tuple[Claim, ...]:
    flow = claims_on(
        "second layer",
        f"{_SETTING}, learning rate {LEARNING_RATE}",
        (
            "the induction head emerges when the gradient flow says",
            "The step at which k² reaches half of w*² equals that of the ODE within 10 %.",
            Equivalence("emergence", "induction head", "its gradient flow", 0.1, relative=True),
            "the theory is of the flow; we read no comparison of the two",
            "our closed form of the population losses",
        ),
    )
    scaling = (
        ("the plateau grows linearly in the length", "twice the length", "L = 80 against 40"),
        ("the plateau grows linearly in log(1/σ)", "σ = 0.0001", "σ = 0.0001 against 0.01"),
        ("the plateau grows as (1+α*)²", "α* = 0.5", "α* = 0.5 against 1"),
    )
    return flow + tuple(
        claim
        for name, arm, changed in scaling
        for claim in claims_on(
            "second layer",
            f"{_SETTING}, {changed}",
            (
                name,
                "The step of the emergence, divided by (L-2)(1+α*)² log(w*/2σ) / 2w*², is the same "
                "within 15 %.",
                Equivalence("scaled_emergence", arm, "induction head", 0.15, relative=True),
                "plateau of length Θ((1+α*)² L log(1/σ) / w*²)",
                _FIGURE,
            ),
        )
    )


def _markov_claims() -> tuple[Claim, ...]:
    return claims_on(
        "markov",
        "two attention layers of one head, 8.7k parameters, chains of 3 states, 64 tokens",
        (
            "on Markov chains the unigram comes before the bigram",
            "The divergence from the in-context unigram reaches its minimum before the in-context "
            "bigram becomes the closer one.",
            Superiority(
                "moment", "nearest to the unigram", "nearer to the bigram", "lower", (), _STEPS
            ),
            "a unigram plateau, then an abrupt change to the bigram",
            "Edelman et al., arXiv 2402.11004, as the discrete version of the same transition",
        ),
    )
