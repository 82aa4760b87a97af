"""The DataModule of user-item interactions, for training, full ranking, and path planning."""

from typing import Literal, get_args

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_plugins.checkpoints import CheckedLoading
from lightning_plugins.datamodules.interactions.batches import Questions, Windows
from lightning_plugins.datamodules.interactions.interaction_table import (
    InteractionTable,
    first_of_each_pair,
    in_order,
    k_core,
    share_of_users_with_ties,
)
from lightning_plugins.datamodules.interactions.pairs import questions_of_pairs
from lightning_plugins.datamodules.interactions.readers import read_interactions
from lightning_plugins.datamodules.interactions.splits import (
    Question,
    Split,
    leave_last_out,
    split_as_given,
    split_by_time,
)
from lightning_plugins.datamodules.resumable import ResumableDataLoader
from lightning_plugins.nn.recommendation import Catalogue, Item
from lightning_plugins.nn.recommendation.catalogue import ItemId

SplitName = Literal["leave_last_out", "time", "given"]


class InteractionDataModule(CheckedLoading, LightningDataModule):
    """User-item interactions from MovieLens, RecBole's atomic files, or a table.

    Items are numbered from 1, users from 0. Sequences are in chronological order and padded with
    zeros at the end. If a user took an item several times, only the first interaction is kept.

    Training batches are dictionaries with ``user``, int64 ``(batch,)``, and ``items``, int64
    ``(batch, max_length + 1)``: windows in which each item of a user except the first is a target
    exactly once. Validation and test batches are dictionaries:

    - ``user``: int64 ``(batch,)``;
    - ``history``: int64 ``(batch, max_length)``, the latest items before the target;
    - ``seen``: int64 ``(batch, longest)``, all items before the target, to exclude them;
    - ``target``: int64 ``(batch,)``.

    Prediction batches have the same keys, for ``predict_users`` users drawn with ``seed``. The
    history contains all items of the user. The target of a path is drawn uniformly from the items
    that the user has not seen and that ``min_target_count`` users took in the training part. With
    ``pairs``, users and targets are those of a file.

    Interactions of a user with the same timestamp are in an order that is derived from the
    identifiers, so it does not depend on the order of rows. A warning gives the share of users
    concerned. ``leave_last_out`` trains on interactions that are later than targets of other users;
    a warning gives the share of such targets. What was read and what each filter removed is
    printed.

    Args:
        source: Any table (CSV, TSV, JSON, Parquet, packed or not); a folder of MovieLens (100K, 1M,
            latest, latest-small, 25M); a folder or an ``.inter`` file of RecBole, also split into
            ``NAME.train.inter``, ``NAME.valid.inter`` and ``NAME.test.inter``; or
            ``movielens-100k`` (an asset).
        columns: Role -> column of a table, for columns that are not found by their names. The roles
            are ``user`` and ``item``, and optionally ``timestamp`` (numbers or ISO 8601),
            ``rating``, ``title``, ``year``, ``genres`` and ``text`` (a description). Without
            timestamps, the rows have to be in chronological order.
        items: A table of items with some of these columns, joined by the items' identifiers.
        users: A table of users, for the profiles that a language model may see.
        pairs: A table of users and targets to plan paths for, with the columns ``user`` and
            ``target``; None draws them. Users that are not in the data have an empty history.
        min_rating: Lower ratings are removed. Data without ratings is not filtered.
        min_user_count: Minimum number of interactions per user, enforced by an iterated k-core.
        min_item_count: Minimum number of interactions per item, enforced in the same way.
        split: ``leave_last_out`` uses each user's last item for test and the one before for
            validation; ``time`` splits at two points in time, so that no training interaction is
            later than an evaluation target; ``given`` uses RecBole's split files without any
            filter. None means ``given`` for split files, otherwise ``leave_last_out``.
        max_length: Maximum length of a history that a network sees.
        batch_size: Number of windows per batch on each rank.
        evaluation_batch_size: Number of users per batch in validation, test and prediction.
        predict_users: Number of users to plan paths for; None means all.
        min_target_count: Minimum number of training interactions of a path's target.
        seed: Seed of the order of windows, and of the users and targets for prediction.

    Attributes:
        num_items: Number of items.
        num_users: Number of users with interactions, without new users of ``pairs``.
        catalogue: Titles, years, genres and identifiers by item number.
        user_ids: The identifiers of the data by user number.
        profiles: What the data states about each user, such as age and occupation; ``""`` without.
        parts: Training sequences and evaluation questions.
        item_counts: Training interactions of each item, int64 ``(num_items + 1,)``.

    Raises:
        ValueError: An argument is out of range, or the data is invalid or empty after filtering.
        FileNotFoundError: In ``setup``, if the source does not exist.
    """

    num_items: int
    num_users: int
    catalogue: Catalogue
    user_ids: tuple[ItemId, ...]
    profiles: tuple[str, ...]
    parts: Split
    item_counts: Tensor

    def __init__(
        self,
        source: str = "movielens-100k",
        columns: dict[str, str] | None = None,
        min_rating: float = 4.0,
        min_user_count: int = 5,
        min_item_count: int = 5,
        split: SplitName | None = None,
        max_length: int = 50,
        batch_size: int = 128,
        evaluation_batch_size: int = 512,
        predict_users: int | None = 200,
        min_target_count: int = 10,
        seed: int = 0,
        items: str | None = None,
        users: str | None = None,
        pairs: str | None = None,
    ) -> None:
        super().__init__()
        positive = {
            "min_user_count": min_user_count,
            "min_item_count": min_item_count,
            "max_length": max_length,
            "batch_size": batch_size,
            "evaluation_batch_size": evaluation_batch_size,
            "predict_users": 1 if predict_users is None else predict_users,
            "min_target_count": min_target_count,
        }
        for name, value in positive.items():
            if value < 1:
                raise ValueError(f"{name}={value}: expected at least 1")
        if seed < 0:
            raise ValueError(f"seed={seed}: expected at least 0")
        if split not in (None, *get_args(SplitName)):
            raise ValueError(f"split={split!r}: expected 'leave_last_out', 'time' or 'given'")
        self.source = source
        self.columns = columns or {}
        self.min_rating = min_rating
        self.min_user_count = min_user_count
        self.min_item_count = min_item_count
        self.split = split
        self.max_length = max_length
        self.batch_size = batch_size
        self.evaluation_batch_size = evaluation_batch_size
        self.predict_users = predict_users
        self.min_target_count = min_target_count
        self.seed = seed
        self.items = items
        self.users = users
        self.pairs = pairs
        self._is_read = False

    def setup(self, stage: str | None = None) -> None:
        """Read the data on the first call."""
        if self._is_read:
            return
        table = read_interactions(self.source, self.columns, self.items, self.users)
        split = self.split or ("leave_last_out" if table.parts is None else "given")
        if split == "given" and table.parts is None:
            raise ValueError(
                f"split='given': {self.source} has no split files (NAME.train.inter, "
                "NAME.valid.inter, NAME.test.inter)"
            )
        if split == "time" and table.timestamps is None:
            raise ValueError(f"split='time': {self.source} has no timestamps")
        table = self._filtered(table, is_filtered=split != "given")
        users, numbers = np.unique(table.users), np.unique(table.items, return_inverse=True)
        item_ids = [table.item_ids[place] for place in numbers[0]]
        self.catalogue = Catalogue(
            [table.facts.get(name, Item(str(name))) for name in item_ids], item_ids
        )
        self.user_ids = tuple(table.user_ids[place] for place in users)
        self.profiles = tuple(table.profiles.get(name, "") for name in self.user_ids)
        self.num_items, self.num_users = len(item_ids), len(self.user_ids)
        by_user = ByUser(table.users)
        self._sequences = by_user.split(numbers[1] + 1)
        self.parts = self._split(split, table, by_user)
        trained = np.concatenate(self.parts.train)
        self.item_counts = torch.from_numpy(np.bincount(trained, minlength=len(self.catalogue)))
        self._questions: list[Question] | None = None
        if self.pairs is not None:
            self._questions, new_users = questions_of_pairs(
                self.pairs, self.user_ids, self.catalogue, self._sequences
            )
            self.user_ids += tuple(new_users)
            self.profiles += ("",) * len(new_users)
        self._is_read = True

    def train_dataloader(self) -> ResumableDataLoader:
        """Return windows of the training part, in an order given by the seed and the epoch."""
        windows = Windows(self.parts.train, self.max_length)
        return ResumableDataLoader.for_trainer(
            self.trainer, windows, self.batch_size, seed=self.seed
        )

    def val_dataloader(self) -> DataLoader:
        """Return the validation questions in order."""
        return self._question_loader(self.parts.validation)

    def test_dataloader(self) -> DataLoader:
        """Return the test questions in order."""
        return self._question_loader(self.parts.test)

    def predict_dataloader(self) -> DataLoader:
        """Return users and the targets of their paths."""
        return self._question_loader(self.path_questions())

    def path_questions(self) -> list[Question]:
        """Return users with their whole history and a target: of ``pairs``, or drawn."""
        if self._questions is not None:
            return self._questions
        generator = np.random.default_rng(self.seed)
        order = generator.permutation(len(self._sequences))[: self.predict_users]
        common = np.flatnonzero(self.item_counts.numpy() >= self.min_target_count)
        questions = []
        for user in sorted(order.tolist()):
            unseen = np.setdiff1d(common, self._sequences[user])
            if len(unseen):
                target = int(generator.choice(unseen))
                questions.append(Question(user, self._sequences[user], target))
        if not questions:
            raise ValueError(
                f"min_target_count={self.min_target_count}: no user has an unseen item with this "
                "many interactions; lower it"
            )
        return questions

    def _filtered(self, table: InteractionTable, is_filtered: bool) -> InteractionTable:
        """Sort the interactions and apply the filters; print what was read and removed."""
        notes = [*table.notes]
        if is_filtered and table.ratings is not None:
            kept = table.rows(table.ratings >= self.min_rating)
            notes.append(f"min_rating={self.min_rating} keeps {len(kept)} of {len(table)}")
            if missing := np.isnan(table.ratings).sum():
                notes[-1] += f", {missing} have no rating"
            if not len(kept) and missing < len(table):
                low, high = np.nanmin(table.ratings), np.nanmax(table.ratings)
                raise ValueError(
                    f"min_rating={self.min_rating}: {self.source} has ratings from {low:g} to "
                    f"{high:g}, so no interaction is left; lower it"
                )
            table = kept
        if table.timestamps is None:
            notes.append("no timestamps: the rows are taken as chronological")
        table = in_order(table)
        if table.parts is not None:
            table = table.rows(np.argsort(table.parts, kind="stable"))
        kept = first_of_each_pair(table)
        if len(kept) < len(table):
            notes.append(f"{len(table) - len(kept)} repeated interactions are removed")
        table = kept
        if is_filtered:
            kept = table.rows(
                k_core(table.users, table.items, self.min_user_count, self.min_item_count)
            )
            notes.append(
                f"min_user_count={self.min_user_count} and min_item_count={self.min_item_count} "
                f"keep {_counts(kept)} of {_counts(table)}"
            )
            table = kept
        if not len(table):
            raise ValueError(
                f"source={self.source!r}: no interaction is left with "
                f"min_rating={self.min_rating}, "
                f"min_user_count={self.min_user_count} and min_item_count={self.min_item_count}; "
                "lower them"
            )
        rank_zero_info("interactions: " + "; ".join(notes))
        share = share_of_users_with_ties(table)
        if share:
            rank_zero_warn(
                f"{share:.0%} of the users have interactions with equal timestamps: their order is "
                "derived from the identifiers and says nothing about time"
            )
        return table

    def _split(self, split: SplitName, table: InteractionTable, by_user: "ByUser") -> Split:
        times = None if table.timestamps is None else by_user.split(table.timestamps)
        if split == "time":
            assert times is not None
            return split_by_time(self._sequences, times)
        if split == "given":
            assert table.parts is not None
            return split_as_given(self._sequences, by_user.split(table.parts))
        parts = leave_last_out(self._sequences)
        if times is not None and parts.test:
            latest = max(t[len(items) - 1] for t, items in zip(times, parts.train, strict=True))
            early = sum(times[question.user][-1] < latest for question in parts.test)
            if early:
                rank_zero_warn(
                    f"split='leave_last_out': {early / len(parts.test):.0%} of the test targets "
                    "are earlier in time than the latest training interaction, so the networks "
                    "learn from the future; split='time' avoids this"
                )
        return parts

    def _question_loader(self, questions: list[Question]) -> DataLoader:
        longest = max([1, *(len(question.history) for question in questions)])
        dataset = Questions(questions, self.max_length, longest)
        return DataLoader(dataset, batch_size=self.evaluation_batch_size)


class ByUser:
    """Splits columns of rows by user, in the order of user numbers, and keeps the order of rows."""

    def __init__(self, users: np.ndarray) -> None:
        self._order = np.argsort(users, kind="stable")
        self._starts = np.flatnonzero(np.diff(users[self._order])) + 1

    def split(self, column: np.ndarray) -> list[np.ndarray]:
        """Return the values of each user."""
        return np.split(column[self._order], self._starts)


def _counts(table: InteractionTable) -> str:
    users, items = len(np.unique(table.users)), len(np.unique(table.items))
    return f"{len(table)} interactions, {users} users and {items} items"
