"""Language models at the best of several learning rates, and how soon a baseline gets as far."""

import math
from typing import TYPE_CHECKING, Any

from lightning_plugins.claims.claim import Cell

if TYPE_CHECKING:
    from lightning_plugins.claims.measurements.recipe_run import TrainedRecipe

_LR = "model.init_args.optimizer.init_args.lr"
_MOST_WIDENINGS = 3


def run_tuned(config: dict[str, Any], seed: int) -> Cell:
    """Train at every rate of ``config["learning_rates"]``; test that with the least ``val/loss``.

    Where that one is the first or the last, the grid is widened by its own factor, up to three
    times; still on the edge, or with one rate only, the metric ``on_grid_edge`` says so. Rates are
    chosen seed by seed on the validation part and judged on the test part, so that choosing among
    many does not flatter.
    """
    rates = sorted(config["learning_rates"])
    runs = {rate: _trained(config, seed, rate) for rate in rates}
    if len(rates) > 1:
        factor = rates[1] / rates[0]
        for _ in range(_MOST_WIDENINGS):
            best = _best(runs)
            if not _on_edge(best, runs):
                break
            rate = best / factor if best == min(runs) else best * factor
            runs[rate] = _trained(config, seed, rate)
    best = _best(runs)
    return {
        "metrics": {
            "test_loss": runs[best].test_metrics["test/loss"],
            "bits_per_byte": runs[best].test_metrics["test/bits_per_byte"],
            "val_loss": _loss(runs[best]),
            "learning_rate": best,
            "trials": float(len(runs)),
            "seconds": sum(run.fit_seconds for run in runs.values()),
            "on_grid_edge": float(_on_edge(best, runs)),
        },
        "series": {
            "learning_rates": sorted(runs),
            "val_losses": [_loss(runs[rate]) for rate in sorted(runs)],
        },
    }


def run_speedup(config: dict[str, Any], seed: int) -> Cell:
    """How many times as many steps the baseline needs for the loss at which this arm ends.

    Both train at their given rate; the baseline, ``config["baseline"]``, with twice the steps and
    its schedule stretched over them, is asked at 5 % intervals when its ``val/loss`` is down to the
    arm's last one. ``speedup`` is that step over the arm's steps, and 2 where it never is.

    Source: Wang et al., arXiv 2502.19002, section 5: how the paper's "2x" is measured.
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


def _best(runs: "dict[float, TrainedRecipe]") -> float:
    return min(sorted(runs), key=lambda rate: _loss(runs[rate]))


def _on_edge(rate: float, runs: "dict[float, TrainedRecipe]") -> bool:
    return rate in (min(runs), max(runs))


def _loss(trained: "TrainedRecipe") -> float:
    """The last validation loss; infinite where the run diverged."""
    loss = trained.fit_metrics["val/loss"]
    return loss if math.isfinite(loss) else math.inf
