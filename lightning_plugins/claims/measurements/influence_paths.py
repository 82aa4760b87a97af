"""What one run of the experiments on influence paths trains and measures."""

import contextlib
import io
import time
from typing import Any

from lightning_plugins.claims.cell import Cell

_PER_SEED = 100  # so that networks of different seeds share no training seed
_QUIET: dict[str, Any] = {
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "logger": False,
}


def run_planner(config: dict[str, Any], seed: int) -> Cell:
    """Score a planner's paths with the evaluators of this seed; return means over users.

    The seed determines users, targets, backbone and evaluators; they are the same for every
    planner. Networks are trained once per seed and stored in the user's cache folder, under the
    hash of what this function imports.
    """
    from lightning.pytorch import Trainer

    from lightning_plugins.assets.cache import cache_folder
    from lightning_plugins.claims.import_closure import closure_of_run
    from lightning_plugins.claims.measurements.recipe_run import quiet
    from lightning_plugins.datamodules import InteractionDataModule
    from lightning_plugins.litmodels import InfluencePathPlanner
    from lightning_plugins.litmodels.recommendation.model_cache import fitted_checkpoint

    started = time.perf_counter()
    settings = config["overrides"]
    data = InteractionDataModule(predict_users=settings["users"], seed=seed)
    data.setup()
    folder = cache_folder().parent / "recommenders" / closure_of_run(run_planner).sha256()[:16]

    def fitted(network: Any, number: int) -> str:
        epochs = settings["epochs"]
        return str(fitted_checkpoint(data, network, _PER_SEED * seed + number, folder, epochs))

    with quiet(), contextlib.redirect_stdout(io.StringIO()):
        planner = _planner(config)
        if planner.needs is not None:
            planner.checkpoint = fitted(planner.needs, 4)
        module = InfluencePathPlanner(
            backbone=fitted("sasrec", 1),
            evaluators={"gru4rec": fitted("gru4rec", 3), "sasrec": fitted("sasrec", 2)},
            planners={"": planner},
            user_model=_user_model(config),
            seed=seed,
        )
        Trainer(accelerator="cpu", devices=1, enable_checkpointing=False, **_QUIET).predict(
            module, datamodule=data, return_predictions=False
        )
    metrics = {name.removeprefix("/"): value for name, value in module.table.means().items()}
    return {"metrics": {**metrics, "seconds": time.perf_counter() - started}}


def _planner(config: dict[str, Any]) -> Any:
    from lightning_plugins.litmodels.recommendation.language.local_model import LocalModel
    from lightning_plugins.litmodels.recommendation.planners import (
        LanguageModelTrie,
        default_planners,
    )

    if config["planner"] == "smollm2":
        return LanguageModelTrie(LocalModel("smollm2"))
    return default_planners()[config["planner"]]


def _user_model(config: dict[str, Any]) -> Any:
    from lightning_plugins.litmodels.recommendation.user_models import TakesTheLikely

    rank = config.get("accepted_rank")
    return None if rank is None else TakesTheLikely(rank)
