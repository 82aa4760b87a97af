"""Trains language models at the best of several learning rates, and measures speed-ups."""

import json
import math
from functools import cache
from typing import TYPE_CHECKING, Any

from lightning_plugins.claims.cell import Cell
from lightning_plugins.claims.fingerprints import canonical_json

if TYPE_CHECKING:
    from lightning_plugins.claims.measurements.recipe_run import TrainedRecipe

_LR = "model.init_args.optimizer.init_args.lr"
_MAX_EXTENSIONS = 3


def run_tuned(config: dict[str, Any], seed: int) -> Cell:
    """Choose a rate of ``config["learning_rates"]`` with one seed, then train with another.

    The rate with the lowest ``val/loss`` is chosen with ``config["tuning_seed"]``, once per
    process. If it is at an edge of the grid, the grid is extended by its own factor, up to three
    times. The metric ``on_grid_edge`` is 1 if the best rate is still at the edge, or if there is
    only one rate.
    """
    losses = _tuning_losses(canonical_json(config))
    best = min(sorted(losses), key=losses.__getitem__)
    trained = _trained(config, seed, best)
    return {
        "metrics": {
            "test_loss": trained.test_metrics["test/loss"],
            "bits_per_byte": trained.test_metrics["test/bits_per_byte"],
            "val_loss": _loss(trained),
            "learning_rate": best,
            "trials": float(len(losses)),
            "seconds": trained.fit_seconds,
            "on_grid_edge": float(_on_edge(best, losses)),
        },
        "series": {
            "learning_rates": sorted(losses),
            "val_losses": [losses[rate] for rate in sorted(losses)],
        },
    }


@cache
def _tuning_losses(config_json: str) -> dict[float, float]:
    config = json.loads(config_json)
    rates = sorted(config["learning_rates"])
    if len(rates) == 1:
        return {rates[0]: math.nan}  # nothing to choose
    losses = {rate: _loss(_trained(config, config["tuning_seed"], rate)) for rate in rates}
    factor = rates[1] / rates[0]
    for _ in range(_MAX_EXTENSIONS):
        best = min(sorted(losses), key=losses.__getitem__)
        if not _on_edge(best, losses):
            break
        rate = best / factor if best == min(losses) else best * factor
        losses[rate] = _loss(_trained(config, config["tuning_seed"], rate))
    return losses


def run_speedup(config: dict[str, Any], seed: int) -> Cell:
    """Measure how many times this arm's steps the baseline needs to reach this arm's final loss.

    Both train at their given rate. The baseline, ``config["baseline"]``, trains for twice the
    steps, with its schedule stretched over them, and is validated at intervals of 5 %.
    ``speedup`` is the first step at which its ``val/loss`` is at most the arm's last one, divided
    by the arm's steps; it is 2 if the baseline does not reach that loss.

    Source: the "2x" of Wang et al., arXiv 2502.19002, as the figures of the authors' repository
    measure it.
    """
    from lightning_plugins.claims.measurements.recipe_run import train_recipe
    from lightning_plugins.claims.measurements.recording_callbacks import ValidationWatch

    trained = train_recipe(config, seed)
    target, steps = _loss(trained), trained.trainer.global_step
    twice = {"trainer.max_steps": 2 * steps, "trainer.val_check_interval": steps // 10}
    baseline = {
        "recipe": config["recipe"],
        "overrides": {**config["overrides"], **config["baseline"], **twice},
    }
    watch = ValidationWatch("val/loss")
    train_recipe(baseline, seed, [watch])
    reached = [step for step, loss in zip(watch.steps, watch.values, strict=True) if loss <= target]
    return {
        "metrics": {
            "speedup": (reached[0] if reached else 2 * steps) / steps,
            "val_loss": target,
            "baseline_val_loss": watch.values[-1],
            "test_loss": trained.test_metrics["test/loss"],
        },
        "series": {
            "baseline_steps": [float(step) for step in watch.steps],
            "baseline_val_losses": watch.values,
        },
    }


def _trained(config: dict[str, Any], seed: int, rate: float) -> "TrainedRecipe":
    from lightning_plugins.claims.measurements.recipe_run import train_recipe

    return train_recipe({**config, "overrides": {**config["overrides"], _LR: rate}}, seed)


def _on_edge(rate: float, losses: dict[float, float]) -> bool:
    return rate in (min(losses), max(losses))


def _loss(trained: "TrainedRecipe") -> float:
    """The last validation loss; infinite if the run diverged."""
    loss = trained.fit_metrics["val/loss"]
    return loss if math.isfinite(loss) else math.inf
