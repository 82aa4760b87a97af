"""What one run of the experiments on late-phase SAM trains and measures."""

from typing import TYPE_CHECKING, Any

from lightning_plugins.claims.cell import Cell

if TYPE_CHECKING:
    from lightning_plugins.claims.measurements.recipe_run import TrainedRecipe


def run_switch(config: dict[str, Any], seed: int) -> Cell:
    """Train one arm; measure test accuracy, and λ_max on the whole training set."""
    from lightning_plugins._lightning_compat.loops import callbacks_of
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
    """Measure the loss barrier from the weights at the switch to the final ones, and the rise.

    With ``other_seed`` the final weights are those of an independent run. ``rise`` is the mean
    training loss at the unperturbed weights in the epoch after the switch minus that in the epoch
    before.
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


def run_adversarial(config: dict[str, Any], seed: int) -> Cell:
    """Train one arm; measure the accuracy on clean and on attacked test images."""
    from lightning_plugins.claims.measurements.recipe_run import train_recipe

    trained = train_recipe(config, seed)
    return {
        "metrics": {
            "test_accuracy": 100 * trained.test_metrics["test/accuracy"],
            "robust_accuracy": 100 * trained.test_metrics["robust/accuracy"],
            "seconds": trained.fit_seconds,
        }
    }


def _largest_eigenvalue(trained: "TrainedRecipe") -> float:
    """λ_max of the Hessian of the plain cross-entropy on the training set, in eval mode."""
    from lightning_plugins.curvature import HessianOperator, largest_eigenvalues

    model: Any = trained.model.eval()
    operator = HessianOperator(model.loss, model.parameters(), _training_batches(trained))
    return float(largest_eigenvalues(operator, operator.dimension).values[0])


def _training_batches(trained: "TrainedRecipe") -> list[tuple[Any, ...]]:
    from torch.utils.data import DataLoader

    datamodule: Any = trained.datamodule
    return [tuple(batch) for batch in DataLoader(datamodule.train_dataset, 1000)]
