"""A callback that reports planned paths and the planners' trade-offs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_plugins.litmodels.recommendation.influence_path import InfluencePath
from lightning_plugins.litmodels.recommendation.influence_paths import InfluencePathPlanner
from lightning_plugins.litmodels.recommendation.language.chat_model import Usage
from lightning_plugins.litmodels.recommendation.path_files import paths_as_csv, paths_as_jsonl
from lightning_plugins.litmodels.recommendation.path_table import gathered
from lightning_plugins.nn.recommendation.item_network import padded, unpadded
from lightning_plugins.reports.recommendation_paths import (
    GuidedPath,
    GuidedStep,
    frontier_picture,
    guided_paths_page,
    guided_paths_picture,
    interest_curves_picture,
)
from lightning_plugins.reports.send_picture import send_picture
from lightning_plugins.reports.writer import write_text_atomically

_SHOWN_OF_HISTORY = 5


class InfluencePathReport(Callback):
    """Reports the paths of the first users, with titles, genres and the interest in the target.

    For ``trainer.predict`` with an ``InfluencePathPlanner``. The callback writes to the log folder:

    - ``paths.html``, the paths of the first users;
    - ``paths.jsonl`` (one object per path) and ``paths.csv`` (one row per recommendation), the
      paths of all users and planners with the identifiers of the data.

    It also sends three pictures to the loggers that accept images, or writes them to the same
    folder: the paths of the first users; the increase of interest against acceptability and
    coherence over all users and planners, with 95 % intervals; and each user's increase of interest
    along the path. Without matplotlib, no picture is written.

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
        self._all: list[InfluencePath] = []

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
        self._paths, self._all = [], []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Sequence[InfluencePath],
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect all paths, and the measures of the first users of the first batch."""
        self._all += outputs
        if batch_idx or trainer.global_rank:
            return
        assert isinstance(pl_module, InfluencePathPlanner)
        histories = unpadded(batch["seen"])
        # The paths of one planner are in the order of the batch's users.
        numbers = [place % len(histories) for place in range(len(outputs))]
        self._paths = [
            _guided(path, histories[user], pl_module)
            for shown in range(min(self.users, len(histories)))
            for user, path in zip(numbers, outputs, strict=True)
            if user == shown and (self.planners is None or path.planner in self.planners)
        ]

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the page and the pictures."""
        folder = Path(
            trainer.log_dir or trainer.default_root_dir
        )  # a collective call, needed on every rank
        assert isinstance(pl_module, InfluencePathPlanner)
        plain: list[Any] = gathered([(*path[:-1], tuple(path.usage)) for path in self._all])
        paths = [InfluencePath._make((*path[:-1], Usage._make(path[-1]))) for path in plain]
        if not self._paths:
            return
        for name, text in (("jsonl", paths_as_jsonl(paths)), ("csv", paths_as_csv(paths))):
            write_text_atomically(folder / f"paths.{name}", text)
        page = folder / "paths.html"
        write_text_atomically(page, guided_paths_page("Paths towards a target", self._paths))
        judge = pl_module.first_evaluator_label
        try:
            pictures = {
                "paths": guided_paths_picture(self._paths),
                "frontier": frontier_picture(
                    pl_module.table.rows, f"IoI {judge}", (f"logP {judge}", "genres")
                ),
                "interest": interest_curves_picture(
                    pl_module.curves, f"increase of log P(target), nats, by {judge}"
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
        rank_zero_info(
            f"wrote {page}, paths.jsonl and paths.csv; sent the pictures to {', '.join(sent)}"
        )


@torch.no_grad()
def _guided(path: InfluencePath, history: list[int], module: InfluencePathPlanner) -> GuidedPath:
    network, catalogue = module.first_evaluator, module.catalogue
    numbers = [catalogue.number_of(item) or 0 for item in (*path.items, path.target)]
    prefixes = [list(history)]
    for item, is_accepted in zip(numbers, path.is_accepted, strict=False):
        prefixes.append(prefixes[-1] + ([item] if is_accepted else []))
    items = padded(prefixes, network.max_length, module.device)
    before, *after = network(items).softmax(dim=1)[:, numbers[-1]].tolist()
    target = catalogue[numbers[-1]]
    return GuidedPath(
        planner=path.planner,
        user=f"user {path.user}",
        target=str(target),
        target_genres=target.genres,
        history=tuple(str(catalogue[item]) for item in history[-_SHOWN_OF_HISTORY:]),
        probability_before=before,
        problem=path.problem,
        steps=tuple(
            GuidedStep(
                str(catalogue[item]),
                catalogue[item].genres,
                is_accepted,
                chance,
                str(catalogue.id_of(item)),
            )
            for item, is_accepted, chance in zip(numbers, path.is_accepted, after, strict=False)
        ),
    )
