"""What one run of the experiments on induction heads trains and measures."""

import functools
import json
import math
from typing import TYPE_CHECKING, Any

from lightning_plugins.claims.cell import Cell
from lightning_plugins.claims.fingerprints import canonical_json

if TYPE_CHECKING:
    from lightning_plugins.callbacks import PhaseDetector

REFERENCE = {"length": 40, "alpha": 1.0, "w_star": 0.49, "sigma_init": 0.01}
LEARNING_RATE = 0.5


def run_mixture(config: dict[str, Any], seed: int) -> Cell:
    """Train one arm, or solve its gradient flow; measure the optimizer step of an event."""
    from lightning_plugins.nn.induction import MixtureDynamics, find_phases

    if config.get("flow"):
        setting = dict(REFERENCE)
        sigma = setting.pop("sigma_init")
        flow = MixtureDynamics(int(setting.pop("length")), **setting).solve(range(2000), sigma)
        match = flow.k**2 / REFERENCE["w_star"] ** 2
        steps = [1 + time / LEARNING_RATE for time in flow.times]
        phases = find_phases(steps, list(flow.four_gram_loss), list(match))
        return {"metrics": {"emergence": phases.emergence}}
    detector = _watched_run(config, seed)
    assert detector.phases is not None
    emergence = detector.phases.emergence
    return {
        "metrics": {
            "moment": getattr(detector.phases, config["reads"]),
            "emergence": emergence,
            "scaled_emergence": emergence * LEARNING_RATE / _predicted_time(**config["setting"]),
        },
        "series": _series(detector),
    }


def run_markov(config: dict[str, Any], seed: int) -> Cell:
    """Train on chains; measure the step of the smallest smoothed divergence or of the crossing."""
    from lightning_plugins.callbacks.phase_detector import running_median

    detector = _watched_run(config, seed)
    unigram, bigram = (
        running_median(detector.values[f"train/kl_{name}"], 9) for name in ("unigram", "bigram")
    )
    nearest = min(range(len(unigram)), key=unigram.__getitem__)
    pairs = enumerate(zip(unigram, bigram, strict=True))
    crossed = (place for place, (one, other) in pairs if place > 0 and other < one)
    place = nearest if config["reads"] == "nearest" else next(crossed, None)
    moment = math.nan if place is None else float(detector.steps[place])
    return {"metrics": {"moment": moment}, "series": _series(detector)}


def _series(detector: "PhaseDetector") -> dict[str, list[float]]:
    return {"steps": [float(step) for step in detector.steps], **detector.values}


def _watched_run(config: dict[str, Any], seed: int) -> "PhaseDetector":
    """Train a recipe once per process for all arms that read different events of the same run."""
    return _watched_run_of(canonical_json({**config, "reads": ""}), seed)


@functools.lru_cache(maxsize=16)
def _watched_run_of(config: str, seed: int) -> "PhaseDetector":
    from lightning_plugins._lightning_compat.loops import callbacks_of
    from lightning_plugins.callbacks import PhaseDetector
    from lightning_plugins.claims.measurements.recipe_run import train_recipe

    trained = train_recipe(json.loads(config), seed)
    (detector,) = [c for c in callbacks_of(trained.trainer) if isinstance(c, PhaseDetector)]
    return detector


def _predicted_time(length: float, alpha: float, w_star: float, sigma_init: float) -> float:
    from lightning_plugins.nn.induction import MixtureDynamics

    return MixtureDynamics(int(length), alpha, w_star).plateau_estimate(sigma_init)
