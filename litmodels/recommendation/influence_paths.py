"""Plans and measures recommendation paths towards an item that a user would not take now."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from torch import Tensor

from lightning_plugins.litmodels.recommendation.influence_path import (
    InfluencePath,
    planning_requests,
)
from lightning_plugins.litmodels.recommendation.language.judge import PathJudge
from lightning_plugins.litmodels.recommendation.model_cache import (
    fitted_checkpoint,
    load_network,
)
from lightning_plugins.litmodels.recommendation.path_table import PathTable, gathered
from lightning_plugins.litmodels.recommendation.planners import (
    Knowledge,
    Planner,
    Sessions,
    default_planners,
)
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
    path_perplexity,
    vector_cosine,
)
from lightning_plugins.nn.recommendation import Catalogue, ItemNetwork
from lightning_plugins.nn.recommendation.catalogue import ItemId, text_vectors
from lightning_plugins.nn.recommendation.item_network import unpadded
from lightning_plugins.nn.recommendation.path_scores import path_scores


class InfluencePathPlanner(LightningModule):
    """Plans paths towards targets with several planners, and measures the paths.

    For ``trainer.predict`` with an ``InteractionDataModule``; its prediction batches contain users
    and targets. Every recommended item is a catalogue item that is neither in the history nor the
    target, and no item occurs twice on a path. This holds for any output of a planner. If fewer
    items are left for a user, the path is shorter, and ``InfluencePath.problem`` states it.
    :meth:`plan` plans for histories and targets without a Trainer.

    Prediction returns :class:`InfluencePath` objects, with the identifiers of the data, and prints
    a table with standard errors over users. Loggers receive the means as ``PLANNER/MEASURE``.
    Measures by each evaluator E:

    - ``IoI E``, ``IoR E``: increase of interest in nats, and increment of rank;
    - ``logP E``: mean log-probability of the items of the path that the user took (acceptability);
    - ``ppl E``: perplexity of these items.

    Measures of the path and its target:

    - ``genres``: Jaccard similarity of the neighbours' genres;
    - ``text``: TF-IDF cosine of neighbours;
    - ``together``: cosine of neighbours over the users who took both.

    Measures of the path (see :mod:`lightning_plugins.metrics.recommendation_paths`):

    - ``variety`` and ``new genres``: diversity;
    - ``taken``: share of accepted items;
    - ``reached``: share of paths on which the planner preferred the target to all allowed items at
      some step. It is 0 for planners that select from a list, because the list excludes the target.

    In a closed loop, ``target`` is the share of users who take the target when it is recommended
    after the path. With a judge, ``accepted by LM`` and ``related by LM`` are added.

    Include random and popular items in every comparison: both increase the interest in an unlikely
    target.

    Sources: Zhu et al., arXiv 2211.10002 (task, IoI, IoR); Wang et al., arXiv 2409.04827 (paths).

    Args:
        backbone: Checkpoint of a ``SequentialRecommender`` for the planners. If None, a SASRec is
            trained on the data with seed 1 on first use and kept in the user's cache.
        evaluators: Label -> checkpoint of a ``SequentialRecommender`` that evaluates the paths. An
            evaluator must not be the backbone; use another seed and preferably another kind of
            network. If None, a SASRec with seed 2 and a GRU4Rec with seed 3 are trained in the same
            way.
        planners: Label -> planner. None means all planners that need no language model:
            ``random``, ``popular``, ``next item``, ``rec2inf``, ``walk``, ``irn``, ``ipg``,
            ``text`` and ``text of 200``.
        path_length: Number of items of a path, without the target.
        user_model: Closed loop: decides, with the first evaluator, which recommendations a user
            takes. Only those join the history. None means the open loop, in which the user takes
            all of them.
        judge: A language model that also evaluates the paths.
        seed: Seed of planners and user models that draw random numbers.

    Raises:
        ValueError: An argument is out of range, an evaluator is the backbone, or a network was
            trained on another number of items.
    Attributes:
        requires_training: False: it trains its networks itself, so ``predict`` needs no checkpoint.
    """

    requires_training = False

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
            raise ValueError("evaluators={}: expected at least one, as label: checkpoint")
        for label, path in (evaluators or {}).items():
            if path == backbone:
                raise ValueError(
                    f"evaluator {label!r} is the backbone {backbone}: a planner must not be "
                    "evaluated by its own network; train another one, with another seed"
                )
        self.save_hyperparameters(ignore=["planners", "user_model", "judge"])
        self.planners = default_planners() if planners is None else planners
        self.user_model = TakesEverything() if user_model is None else user_model
        self.judge = judge
        self.table = PathTable()
        self.curves: dict[str, list[list[float]]] = {}

    def prepare_data(self) -> None:
        """Train the networks that have no checkpoint and are not in the user's cache."""
        datamodule = self._datamodule()
        self._planning_checkpoints(datamodule)
        self._evaluator_checkpoints(datamodule)

    def setup(self, stage: str) -> None:
        """Load the networks, and collect the knowledge about the items from the data."""
        datamodule = self._datamodule()
        self.load(datamodule)
        if not self._evaluators:
            self._load_evaluators(datamodule)
        self._genres = datamodule.catalogue.genre_indicators()
        self._together = co_consumption_vectors(datamodule.parts.train, datamodule.num_items)
        self._user_ids, self._profiles = datamodule.user_ids, datamodule.profiles
        self._num_users = datamodule.num_users

    def load(self, datamodule: Any) -> "InfluencePathPlanner":
        """Prepare :meth:`plan`: read the data, and load or train the networks that plan.

        Args:
            datamodule: An ``InteractionDataModule`` with the settings of the networks' training.

        Returns:
            This module.

        Raises:
            ValueError: A network was trained on another number of items.
        """
        datamodule.setup("predict")  # no effect on later calls
        backbone, of_planners = self._planning_checkpoints(datamodule)
        num_items = datamodule.num_items
        # Not as submodules, so that this module's checkpoint does not contain the networks.
        self._evaluators: dict[str, ItemNetwork] = {}
        self._knowledge = Knowledge(
            backbone=load_network(backbone, num_items),
            catalogue=datamodule.catalogue,
            item_counts=datamodule.item_counts,
            text_vectors=text_vectors(datamodule.catalogue),
            sequences=datamodule.parts.train,
        )
        for label, path in of_planners.items():
            self.planners[label].network = load_network(path, num_items, datamodule.num_users)
        if not isinstance(self.user_model, TakesEverything):
            self._load_evaluators(datamodule)
        return self

    def on_predict_start(self) -> None:
        """Move the networks to this module's device, and reset the table."""
        own = [planner.network for planner in self.planners.values()]
        for network in (self._knowledge.backbone, *self._evaluators.values(), *own):
            if network is not None:
                network.to(self.device)
        self.table = PathTable()
        self.curves = {}
        for report in self._reports().values():
            report.clear()

    def predict_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> list[InfluencePath]:
        """Plan paths for the users of a batch with every planner."""
        histories, targets = unpadded(batch["seen"]), batch["target"].tolist()
        users = batch["user"].tolist()
        found = []
        for label, planner in self.planners.items():
            planner.begin(self.hparams["seed"] + batch_idx)
            self.user_model.begin(self.hparams["seed"] + batch_idx)
            sessions = self._sessions(planner, histories, targets, users=users)
            self.table.add(label, self._measures(label, histories, targets, sessions))
            found += self._paths(label, [self._user_ids[user] for user in users], sessions)
        return found

    @torch.no_grad()
    def plan(
        self,
        history: Sequence[Any],
        target: Any,
        candidates: Sequence[Any] | None = None,
        users: Sequence[ItemId] | None = None,
    ) -> list[InfluencePath]:
        """Plan paths for one user or several, without a Trainer; call :meth:`load` before.

        Example::

            model = InfluencePathPlanner(planners={"ipg": InfluentialGreedy()}, path_length=5)
            model.load(InteractionDataModule("interactions.csv"))
            (path,) = model.plan(["B501", "B507"], target="B512", candidates=in_stock)

        Args:
            history: Item identifiers in chronological order, or one such sequence per user. A
                history may be empty. Items that are not in the catalogue are ignored with a
                warning.
            target: An item identifier, or a list with one per user.
            candidates: Identifiers of the items that may be recommended, for all users or a
                sequence per user; None allows all items.
            users: Names of the users in the results; None numbers them from 0.

        Returns:
            A path per user and planner, ordered by user.

        Raises:
            RuntimeError: :meth:`load` was not called.
            ValueError: The arguments have different lengths, a target is not in the catalogue, or
                no candidate is.
        """
        if not hasattr(self, "_knowledge"):
            raise RuntimeError("plan() has no data: call load(InteractionDataModule(...)) first")
        requests = planning_requests(self.catalogue, history, target, candidates, users)
        planned = []
        for label, planner in self.planners.items():
            planner.begin(self.hparams["seed"])
            self.user_model.begin(self.hparams["seed"])
            sessions = self._sessions(
                planner, requests.histories, requests.targets, requests.candidates
            )
            planned.append(self._paths(label, requests.users, sessions))
        paths = [path for of_user in zip(*planned, strict=True) for path in of_user]
        short = sum(len(path.items) < self.hparams["path_length"] for path in paths)
        if short:
            rank_zero_warn(
                f"{short} of {len(paths)} paths have fewer than "
                f"path_length={self.hparams['path_length']} items; their problem states why"
            )
        return paths

    def on_predict_epoch_end(self) -> None:
        """Print and log the table, and print the reports of planners and judge."""
        self.table.gather()
        parts, self.curves = gathered([self.curves]), {}
        for part in parts:
            for label, curves in part.items():
                self.curves.setdefault(label, []).extend(curves)
        for logger in self.trainer.loggers:
            logger.log_metrics(self.table.means())
        _print(self.table)
        for label, report in self._reports().items():
            _print(f"\n{label}:\n{report}")

    def _sessions(
        self,
        planner: Planner,
        histories: list[list[int]],
        targets: list[int],
        candidates: list[list[int]] | None = None,
        users: list[int] | None = None,
    ) -> Sessions:
        """Plan the paths of one planner; the result includes the items that each user took."""
        knowledge, length = self._knowledge, self.hparams["path_length"]
        num_items = knowledge.catalogue.num_items
        sessions = Sessions(histories, targets, num_items, length, candidates)
        if users is not None:
            numbers = torch.tensor(users) + 1
            sessions.users = numbers.masked_fill(numbers > self._num_users, 0)
            sessions.profiles = [self._profiles[user] for user in users]
        simulated = not isinstance(self.user_model, TakesEverything)
        for _ in range(planner.longest(length)):
            items = planner.next_items(sessions, knowledge)
            sessions.recommend(items)
            network = self.first_evaluator if simulated else knowledge.backbone
            sessions.take(self.user_model.accepts(sessions, items, network))
        return sessions

    def _paths(
        self, label: str, users: Sequence[ItemId], sessions: Sessions
    ) -> list[InfluencePath]:
        catalogue, length = self.catalogue, self.hparams["path_length"]
        return [
            InfluencePath(
                planner=label,
                user=user,
                target=catalogue.id_of(target),
                items=tuple(map(catalogue.id_of, path)),
                is_accepted=tuple(accepted),
                titles=tuple(str(catalogue[item]) for item in path),
                target_title=str(catalogue[target]),
                problem=problem
                or (f"only {len(path)} of {length} items are left" if len(path) < length else ""),
                usage=usage,
            )
            for user, target, path, accepted, problem, usage in zip(
                users,
                sessions.targets.tolist(),
                sessions.paths,
                sessions.accepted,
                sessions.problems,
                sessions.usage,
                strict=True,
            )
        ]

    @property
    def first_evaluator(self) -> ItemNetwork:
        """The evaluator that the user model uses; available after ``setup``."""
        return self._evaluators[self.first_evaluator_label]

    @property
    def first_evaluator_label(self) -> str:
        """The label of the first evaluator; available after ``setup``."""
        return next(iter(self._evaluators))

    @property
    def catalogue(self) -> Catalogue:
        """The items; available after ``setup``."""
        return self._knowledge.catalogue

    def _datamodule(self) -> Any:
        datamodule = getattr(self.trainer, "datamodule", None)
        if datamodule is None or not hasattr(datamodule, "path_questions"):
            raise ValueError(
                f"datamodule={datamodule}: planners require the item catalogue; pass "
                "trainer.predict(datamodule=InteractionDataModule(...))"
            )
        datamodule.setup("predict")  # no effect on later calls
        return datamodule

    def _planning_checkpoints(self, datamodule: Any) -> tuple[str, dict[str, str]]:
        """Return the checkpoints of the backbone and of the planners' own networks."""
        backbone = self.hparams["backbone"]
        if backbone is None:
            backbone = str(fitted_checkpoint(datamodule, "sasrec", seed=1))
        of_planners = {
            label: planner.checkpoint or str(fitted_checkpoint(datamodule, planner.needs, seed=4))
            for label, planner in self.planners.items()
            if planner.needs is not None
        }
        return backbone, of_planners

    def _evaluator_checkpoints(self, datamodule: Any) -> dict[str, str]:
        evaluators = self.hparams["evaluators"]
        if evaluators is not None:
            return evaluators
        return {
            "sasrec": str(fitted_checkpoint(datamodule, "sasrec", seed=2)),
            "gru4rec": str(fitted_checkpoint(datamodule, "gru4rec", seed=3)),
        }

    def _load_evaluators(self, datamodule: Any) -> None:
        """Load the evaluators, and refuse one with the weights of a network that plans."""
        own = {label: planner.network for label, planner in self.planners.items()}
        for label, path in self._evaluator_checkpoints(datamodule).items():
            network = load_network(path, datamodule.num_items)
            if network.negatives is not None:
                raise ValueError(
                    f"evaluator {label!r} ({path}) was trained with negatives={network.negatives}: "
                    "its scores are no probabilities; use one trained with the full softmax"
                )
            for name, other in {"the backbone": self._knowledge.backbone, **own}.items():
                if other is not None and _has_same_weights(network, other):
                    raise ValueError(
                        f"evaluator {label!r} ({path}) has the weights of {name}: a planner must "
                        "not be evaluated by its own network; train another one, with another seed"
                    )
            self._evaluators[label] = network

    def _reports(self) -> dict[str, Counter[str]]:
        found = {label: planner.report for label, planner in self.planners.items()}
        found["judge"] = None if self.judge is None else self.judge.report
        return {label: report for label, report in found.items() if report is not None}

    def _measures(
        self, planner: str, histories: list[list[int]], targets: list[int], sessions: Sessions
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
            values[f"ppl {label}"] = path_perplexity(scores.step_log_prob)
            if label == self.first_evaluator_label:
                self.curves.setdefault(planner, []).extend(scores.curves)
        whole = [[*path, target] for path, target in zip(sessions.paths, targets, strict=True)]
        values["genres"] = genre_jaccard(self._genres, whole)
        values["text"] = vector_cosine(self._knowledge.text_vectors, whole)
        values["together"] = vector_cosine(self._together, whole)
        values["variety"] = genre_variety(self._genres, sessions.paths)
        values["new genres"] = new_genre_share(self._genres, histories, sessions.paths)
        shares = [sum(taken) / len(taken) if taken else torch.nan for taken in sessions.accepted]
        values["taken"] = torch.tensor(shares)
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


def _has_same_weights(one: ItemNetwork, other: ItemNetwork) -> bool:
    mine, its = one.state_dict(), other.state_dict()
    return mine.keys() == its.keys() and all(
        mine[name].shape == its[name].shape and torch.equal(mine[name].cpu(), its[name].cpu())
        for name in mine
    )


def _numbers(values: list[float | None]) -> Tensor:
    return torch.tensor([torch.nan if value is None else value for value in values])


@rank_zero_only
def _print(text: object) -> None:
    print(text)
