"""A callback that reports planned paths and the planners' trade-offs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_plugins.litmodels.recommendation.influence_paths import (
    InfluencePath,
    InfluencePathPlanner,
)
from lightning_plugins.nn.recommendation.item_network import padded, unpadded
from lightning_plugins.reports.recommendation_paths import (
    GuidedPath,
    GuidedStep,
    frontier_picture,
    guided_paths_page,
    guided_paths_picture,
)
from lightning_plugins.reports.send_picture import send_picture
from lightning_plugins.reports.writer import write_text_atomically

_SHOWN_OF_HISTORY = 5


class InfluencePathReport(Callback):
    """Reports the paths of the first users, with titles, genres and the interest in the target.

    For ``trainer.predict`` with an ``InfluencePathPlanner``. The callback writes ``paths.html`` to
    the log folder. It also sends two pictures to the loggers that accept images, or writes them to
    the same folder: the same paths, and the increase of interest against acceptability and
    coherence, over all users and planners, with standard errors. Without matplotlib, only the page
    is written.

    Args:
        users: Number of users to show.
        planners: Labels of the planners to show; None means all.

    Raises:
        ValueError: ``users`` is below 1.
    """

    def __init__(self, users: int = 2, planners: list[str] | None = None) -> None:
        if users < 1:
            raise ValueError(f"users={users}: expected at least 1")
        self.users = users
        self.planners = planners
        self._paths: list[GuidedPath] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the model, and reset the collected paths."""
        if not isinstance(pl_module, InfluencePathPlanner):
            raise ValueError(
                f"InfluencePathReport requires an InfluencePathPlanner, but the model is a "
                f"{type(pl_module).__name__}: remove it from the callbacks"
            )
        for label in self.planners or ():
            if label not in pl_module.planners:
                raise ValueError(
                    f"planners={self.planners}: {label!r} is not one of "
                    f"{', '.join(pl_module.planners)}"
                )
        self._paths = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Sequence[InfluencePath],
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the paths of the first users of the first batch."""
        if batch_idx or trainer.global_rank:
            return
        assert isinstance(pl_module, InfluencePathPlanner)
        shown = sorted({path.user for path in outputs})[: self.users]
        chosen = [
            path
            for user in shown
            for path in outputs
            if path.user == user and (self.planners is None or path.planner in self.planners)
        ]
        known = dict(zip(batch["user"].tolist(), unpadded(batch["seen"]), strict=True))
        self._paths = [_guided(path, known[path.user], pl_module) for path in chosen]

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the page and the pictures."""
        folder = Path(
            trainer.log_dir or trainer.default_root_dir
        )  # a collective call, needed on every rank
        assert isinstance(pl_module, InfluencePathPlanner)
        if not self._paths:
            return
        page = folder / "paths.html"
        write_text_atomically(page, guided_paths_page("Paths towards a target", self._paths))
        judge = pl_module.first_evaluator_label
        try:
            pictures = {
                "paths": guided_paths_picture(self._paths),
                "frontier": frontier_picture(
                    pl_module.table.rows, f"IoI {judge}", (f"logP {judge}", "genres")
                ),
            }
        except ImportError as error:
            rank_zero_info(f"wrote {page}, without pictures: {error}")
            return
        sent = [
            place
            for name, picture in pictures.items()
            for place in send_picture(name, picture, trainer.loggers, folder)
        ]
        rank_zero_info(f"wrote {page}; sent the pictures to {', '.join(sent)}")


@torch.no_grad()
def _guided(path: InfluencePath, history: list[int], module: InfluencePathPlanner) -> GuidedPath:
    network, catalogue = module.first_evaluator, module.catalogue
    prefixes = [list(history)]
    for item, is_accepted in zip(path.items, path.is_accepted, strict=True):
        prefixes.append(prefixes[-1] + ([item] if is_accepted else []))
    items = padded(prefixes, network.max_length, module.device)
    before, *after = network(items).softmax(dim=1)[:, path.target].tolist()
    target = catalogue[path.target]
    return GuidedPath(
        planner=path.planner,
        user=f"user {path.user}",
        target=str(target),
        target_genres=target.genres,
        history=tuple(str(catalogue[item]) for item in history[-_SHOWN_OF_HISTORY:]),
        probability_before=before,
        steps=tuple(
            GuidedStep(str(catalogue[item]), catalogue[item].genres, is_accepted, chance)
            for item, is_accepted, chance in zip(path.items, path.is_accepted, after, strict=True)
        ),
    )
