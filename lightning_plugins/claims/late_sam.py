"""The claims on late-phase SAM (Zhou et al., ICLR 2025, arXiv 2410.10373), on the digits."""

from typing import TYPE_CHECKING, Any

from lightning_plugins.claims.claim import Cell, Claim, Column, Experiment, Paper, Scale
from lightning_plugins.claims.rules import Equivalence, Recovers, Superiority

if TYPE_CHECKING:
    from lightning_plugins.claims.recipe_run import TrainedRecipe

_REGIME = "26k-parameter fully connected net, 1000 8x8 digits, 80 epochs, SAM in the last 30 %"
_SOURCE = "abstract and Fig. 1 (WRN-16-8, CIFAR-10, SGD to epoch 175 of 200, then SAM; 5 seeds)"


def paper() -> Paper:
    """The paper's claims as measured on the digits."""
    return Paper(
        name="late-sam",
        title="Sharpness-Aware Minimization efficiently selects flatter minima late in training",
        citation="Zhou, Wang, Mao, Li, Yan; ICLR 2025; arXiv 2410.10373",
        experiments=(_switch(),),
        claims=(
            Claim(
                name="a late switch to SAM ends flatter than SGD",
                statement="SGD, then SAM in the last part of the run, ends at a lower largest "
                "Hessian eigenvalue than SGD alone.",
                paper_figure="sharpness nearly that of SAM in the whole run; no table was read",
                source=_SOURCE,
                experiment="switch",
                rule=Superiority("lambda_max", arm="late SAM", over="SGD", direction="lower"),
                in_paper_regime=False,
                regime=_REGIME,
            ),
            Claim(
                name="a late switch recovers most of SAM's flatness",
                statement="SAM in the last 30 % of the run recovers at least 70 % of the "
                "reduction of the largest Hessian eigenvalue that SAM in the whole run brings.",
                paper_figure="nearly all of it, with SAM in the last 12.5 % of the run",
                source=_SOURCE,
                experiment="switch",
                rule=Recovers("lambda_max", arm="late SAM", between=("SGD", "SAM"), share=0.7),
                in_paper_regime=False,
                regime=_REGIME,
            ),
            Claim(
                name="a late switch generalizes as well as SAM",
                statement="SAM in the last part of the run reaches the test accuracy of SAM in "
                "the whole run, within half a percentage point.",
                paper_figure="test error nearly that of SAM in the whole run; no table was read",
                source=_SOURCE,
                experiment="switch",
                rule=Equivalence("test_accuracy", arm="late SAM", to="SAM", margin=0.5),
                in_paper_regime=False,
                regime=f"{_REGIME}; SGD is as accurate here, so this says little",
            ),
        ),
        columns=(
            Column("test_accuracy", "test accuracy %", ".2f"),
            Column("lambda_max", "λ_max", ".3f"),
            Column("seconds", "seconds", ".1f"),
            Column("sam_steps", "SAM steps", ".0f"),
        ),
    )


def _switch() -> Experiment:
    """SGD, SGD then SAM, and SAM, from the same seeds."""
    at_paper_scale = {
        "SGD": {"recipe": "image/cifar10_resnet20"},
        "late SAM": {"recipe": "late_sam/cifar10_resnet20"},
        "SAM": {"recipe": "late_sam/cifar10_resnet20_sam"},
    }
    return Experiment(
        name="switch",
        arms={
            "SGD": {"recipe": "image/digits"},
            "late SAM": {"recipe": "late_sam/digits"},
            "SAM": {"recipe": "late_sam/digits_sam"},
        },
        scales={
            "smoke": Scale(seeds=(0, 1, 2)),
            "cpu": Scale(seeds=(0, 1, 2, 3, 4)),
            "paper": Scale(seeds=(0, 1, 2, 3, 4), arms=at_paper_scale),
        },
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
