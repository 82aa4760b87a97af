"""The claims on the abrupt emergence of induction heads (Wang et al., arXiv 2410.11474)."""

from typing import Any

from lightning_plugins.claims.claim import Experiment, Paper, Scale
from lightning_plugins.claims.claim_tables import read_paper
from lightning_plugins.claims.measurements.induction_heads import (
    REFERENCE,
    run_markov,
    run_mixture,
)

_SEEDS = (0, 1, 2, 3, 4)


def paper() -> Paper:
    """Return the paper's claims, measured on the mixed target and on Markov chains."""
    return read_paper(__file__, _second_layer(), _joint(), _markov())


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
