"""Paths of recommendations that lead users towards an item they would not take now."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lightning_plugins.litmodels.recommendation.language.judge import PathJudge
from lightning_plugins.litmodels.recommendation.model_cache import fitted_checkpoint
from lightning_plugins.litmodels.recommendation.path_table import PathTable
from lightning_plugins.litmodels.recommendation.planners import (
    Knowledge,
    Planner,
    Sessions,
    default_planners,
)
from lightning_plugins.litmodels.recommendation.sequential_recommender import SequentialRecommender
from lightning_plugins.litmodels.recommendation.user_models import (
    TakesEverything,
    UserModel,
)
from lightning_plugins.metrics.recommendation_paths import (
    co_consumption_vectors,
    genre_jaccard,
    genre_variety,
    increase_of_interest,
    increment_of_rank,
    new_genre_share,
    vector_cosine,
)
from lightning_plugins.nn.recommendation import Catalogue, ItemNetwork
from lightning_plugins.nn.recommendation.catalogue import text_vectors
from lightning_plugins.nn.recommendation.item_network import unpadded
from lightning_plugins.nn.recommendation.path_scores import path_scores


class InfluencePath(NamedTuple):  # Lightning refuses frozen dataclasses as predictions
    """What was recommended to one user on the way to a target.

    Args:
        planner: label of who planned it.
        user: number of the user.
        target: item number.
        items: item numbers in the order of recommendation, the target not among them.
        is_accepted: whether the user took each of them.
    """

    planner: str
    user: int
    target: int
    items: tuple[int, ...]
    is_accepted: tuple[bool, ...]


class InfluencePathPlanner(LightningModule):
    """Plans paths towards targets, with several planners side by side, and measures them.

    For ``trainer.predict`` with an ``InteractionDataModule``, whose prediction batches hold users
    and targets. Every recommended item is in the catalogue, not in the history, not the target, and
    not twice on a path, whatever a planner answers.

    Prediction returns :class:`InfluencePath` objects and prints a table with standard errors over
    users; loggers get the means as ``PLANNER/MEASURE``. Measures by each evaluator E:

    - ``IoI E``, ``IoR E``: increase of interest in nats and of rank in places;
    - ``logP E``: mean log-probability of an item of the path that was taken, its acceptability.

    Of the path with its target: ``genres`` (Jaccard of neighbours), ``text`` (TF-IDF cosine) and
    ``together`` (cosine over the users who took both). Of the path: ``variety`` and ``new genres``
    (see :mod:`lightning_plugins.metrics.recommendation_paths`), ``taken``, the accepted share, and
    ``reached``,
    the share of paths on which the planner wanted the target itself before the end (never one that
    chooses from a list, where the target is not). In a closed loop ``target``: the share of users
    who take the target when it is offered after the path. With a judge ``accepted by LM`` and
    ``related by LM``. Random and popular items belong into every comparison: both raise the
    interest in an unlikely target.

    Sources: Zhu et al., arXiv 2211.10002 (task, IoI, IoR); Wang et al., arXiv 2409.04827 (paths).

    Args:
        backbone: checkpoint of a ``SequentialRecommender`` that planners may use; None trains a
            SASRec with seed 1 on the data, once, and keeps it in the user's cache.
        evaluators: label -> checkpoint of a ``SequentialRecommender`` that judges; not the
            backbone, better another seed and another kind of network. None trains a SASRec with
            seed 2 and a GRU4Rec with seed 3 in the same way.
        planners: label -> planner; None takes all that need no language model, which are
            ``random``, ``popular``, ``next item``, ``rec2inf``, ``walk``, ``irn``, ``ipg``,
            ``text`` and ``text of 200``.
        path_length: items of a path, the target not among them.
        user_model: closed loop: decides, by the first evaluator, which recommendations a user
            takes, and only those join the history. None is the open loop: all is taken.
        judge: a language model that judges the paths as well.
        seed: of planners and users that draw.

    Raises:
        ValueError: an argument outside its range, an evaluator that is the backbone, or networks
            for other items than the data's.
    """

    def __init__(
        self,
        backbone: str | None = None,
        evaluators: dict[str, str] | None = None,
        planners: dict[str, Planner] | None = None,
        path_length: int = 10,
        user_model: UserModel | None = None,
        judge: PathJudge | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if path_length < 1:
            raise ValueError(f"path_length={path_length}: expected at least 1")
        if seed < 0:
            raise ValueError(f"seed={seed}: expected at least 0")
        if evaluators is not None and not evaluators:
            raise ValueError("evaluators={}: expected at least one, with a label")
        for label, path in (evaluators or {}).items():
            if path == backbone:
                raise ValueError(
                    f"evaluator {label!r} is the backbone {backbone}: a planner must not judge "
                    "itself; train another network, with another seed"
                )
        self.save_hyperparameters(ignore=["planners", "user_model", "judge"])
        self.planners = default_planners() if planners is None else planners
        self.user_model = TakesEverything() if user_model is None else user_model
        self.judge = judge
        self.table = PathTable()

    def prepare_data(self) -> None:
        """Train the networks that were not given and are not in the user's cache."""
        self._checkpoints()

    def setup(self, stage: str) -> None:
        """Read the networks and what the data knows of its items."""
        datamodule, backbone, evaluators, of_planners = self._checkpoints()
        num_items = datamodule.num_items
        # In a dictionary and a dataclass: the networks stay out of this module's own checkpoint.
        self._evaluators = {label: _network(path, num_items) for label, path in evaluators.items()}
        self._knowledge = Knowledge(
            backbone=_network(backbone, num_items),
            catalogue=datamodule.catalogue,
            item_counts=datamodule.item_counts,
            text_vectors=text_vectors(datamodule.catalogue),
            sequences=datamodule.parts.train,
        )
        for label, path in of_planners.items():
            self.planners[label].network = _network(path, num_items)
        self._genres = datamodule.catalogue.genre_indicators()
        self._together = co_consumption_vectors(datamodule.parts.train, num_items)

    def on_predict_start(self) -> None:
        """Move the networks to this module's device and start with an empty table."""
        own = [planner.network for planner in self.planners.values()]
        for network in (self._knowledge.backbone, *self._evaluators.values(), *own):
            if network is not None:
                network.to(self.device)
        self.table = PathTable()
        for report in self._reports().values():
            report.clear()

    def predict_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> list[InfluencePath]:
        """Plan for the users of a batch with every planner."""
        histories, targets = unpadded(batch["seen"]), batch["target"].tolist()
        found = []
        for label, planner in self.planners.items():
            planner.begin(self.hparams["seed"] + batch_idx)
            self.user_model.begin(self.hparams["seed"] + batch_idx)
            sessions = self.plan(planner, histories, targets)
            self.table.add(label, self._measures(histories, targets, sessions))
            rows = zip(
                batch["user"].tolist(), targets, sessions.paths, sessions.accepted, strict=True
            )
            found += [
                InfluencePath(label, user, target, tuple(path), tuple(is_accepted))
                for user, target, path, is_accepted in rows
            ]
        return found

    def on_predict_epoch_end(self) -> None:
        """Print the table, and what planners and judge count about themselves."""
        self.table.gather()
        for logger in self.trainer.loggers:
            logger.log_metrics(self.table.means())
        _print(self.table)
        for label, report in self._reports().items():
            _print(f"\n{label}:\n{report}")

    def plan(self, planner: Planner, histories: list[list[int]], targets: list[int]) -> Sessions:
        """The finished paths of one planner, and what each user took of them."""
        knowledge, length = self._knowledge, self.hparams["path_length"]
        sessions = Sessions(histories, targets, knowledge.catalogue.num_items, length)
        for _ in range(length):
            items = planner.next_items(sessions, knowledge)
            sessions.recommend(items)
            sessions.take(self.user_model.accepts(sessions, items, self.first_evaluator))
        return sessions

    @property
    def first_evaluator(self) -> ItemNetwork:
        """The network by which users decide; there after ``setup``."""
        return self._evaluators[self.first_evaluator_label]

    @property
    def first_evaluator_label(self) -> str:
        """Its label; there after ``setup``."""
        return next(iter(self._evaluators))

    @property
    def catalogue(self) -> Catalogue:
        """What is known of the items; there after ``setup``."""
        return self._knowledge.catalogue

    def _checkpoints(self) -> tuple[Any, str, dict[str, str], dict[str, str]]:
        datamodule = getattr(self.trainer, "datamodule", None)
        if datamodule is None or not hasattr(datamodule, "path_questions"):
            raise ValueError(
                f"datamodule={datamodule}: planners need to know the items; give "
                "trainer.predict an InteractionDataModule"
            )
        datamodule.setup("predict")  # does nothing the second time
        backbone, evaluators = self.hparams["backbone"], self.hparams["evaluators"]
        if backbone is None:
            backbone = str(fitted_checkpoint(datamodule, "sasrec", seed=1))
        if evaluators is None:
            evaluators = {
                "sasrec": str(fitted_checkpoint(datamodule, "sasrec", seed=2)),
                "gru4rec": str(fitted_checkpoint(datamodule, "gru4rec", seed=3)),
            }
        of_planners = {
            label: planner.checkpoint or str(fitted_checkpoint(datamodule, planner.needs, seed=4))
            for label, planner in self.planners.items()
            if planner.needs is not None
        }
        return datamodule, backbone, evaluators, of_planners

    def _reports(self) -> dict[str, Counter[str]]:
        found = {label: planner.report for label, planner in self.planners.items()}
        found["judge"] = None if self.judge is None else self.judge.report
        return {label: report for label, report in found.items() if report is not None}

    def _measures(
        self, histories: list[list[int]], targets: list[int], sessions: Sessions
    ) -> dict[str, Tensor]:
        taken = [items[len(h) :] for items, h in zip(sessions.taken, histories, strict=True)]
        values: dict[str, Tensor] = {}
        for label, network in self._evaluators.items():
            scores = path_scores(network, histories, taken, targets)
            values[f"IoI {label}"] = increase_of_interest(
                scores.log_prob_before, scores.log_prob_after
            )
            values[f"IoR {label}"] = increment_of_rank(scores.rank_before, scores.rank_after)
            values[f"logP {label}"] = scores.step_log_prob
        whole = [[*path, target] for path, target in zip(sessions.paths, targets, strict=True)]
        values["genres"] = genre_jaccard(self._genres, whole)
        values["text"] = vector_cosine(self._knowledge.text_vectors, whole)
        values["together"] = vector_cosine(self._together, whole)
        values["variety"] = genre_variety(self._genres, sessions.paths)
        values["new genres"] = new_genre_share(self._genres, histories, sessions.paths)
        values["taken"] = torch.tensor(sessions.accepted).float().mean(dim=1)
        values["reached"] = sessions.is_reached.float()
        if not isinstance(self.user_model, TakesEverything):
            at_end = self.user_model.accepts(sessions, sessions.targets, self.first_evaluator)
            values["target"] = at_end.float()
        if self.judge is not None:
            catalogue = self._knowledge.catalogue
            accepted = self.judge.acceptability(catalogue, histories, sessions.paths)
            values["accepted by LM"] = _numbers(accepted)
            values["related by LM"] = _numbers(self.judge.relatedness(catalogue, whole))
        return values


def _numbers(values: list[float | None]) -> Tensor:
    return torch.tensor([torch.nan if value is None else value for value in values])


@rank_zero_only
def _print(text: object) -> None:
    print(text)


def _network(path: str, num_items: int) -> ItemNetwork:
    recommender = SequentialRecommender.load_from_checkpoint(
        path, map_location="cpu", weights_only=True
    )
    network = recommender.eval().requires_grad_(False).network
    assert network is not None
    if network.num_items != num_items:
        raise ValueError(
            f"{path} was trained on {network.num_items} items and the data has {num_items}: use "
            "the settings of the data that it was trained with"
        )
    return network
