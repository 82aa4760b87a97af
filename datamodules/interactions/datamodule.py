"""The DataModule of user-item interactions, for training, full ranking, and path planning."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_plugins.datamodules.interactions.interaction_table import InteractionTable, k_core
from lightning_plugins.datamodules.interactions.readers import read_interactions
from lightning_plugins.datamodules.interactions.splits import (
    Question,
    Split,
    leave_last_out,
    split_by_time,
)
from lightning_plugins.datamodules.resumable import ResumableDataLoader
from lightning_plugins.nn.recommendation import Catalogue, Item
from lightning_plugins.nn.recommendation.catalogue import ItemId

SplitName = Literal["leave_last_out", "time"]


class InteractionDataModule(LightningDataModule):
    """User-item interactions from MovieLens, RecBole's atomic files, or a table.

    Items are numbered from 1, users from 0. Sequences are in chronological order and padded with
    zeros at the end. If a user took an item several times, only the first interaction is kept.

    Training batches are int64 ``(batch, max_length + 1)``: windows in which each item of a user
    except the first is a target exactly once. Validation and test batches are dictionaries:

    - ``user``: int64 ``(batch,)``;
    - ``history``: int64 ``(batch, max_length)``, the latest items before the target;
    - ``seen``: int64 ``(batch, longest)``, all items before the target, to exclude them;
    - ``target``: int64 ``(batch,)``.

    Prediction batches have the same keys, for ``predict_users`` users drawn with ``seed``. The
    history contains all items of the user. The target of a path is drawn uniformly from the items
    that the user has not seen and that ``min_target_count`` users took in the training part.

    Args:
        source: ``movielens-100k`` (an asset); a MovieLens folder (100K, 1M, latest, latest-small);
            a folder with an ``.inter`` file of RecBole; or a ``.csv`` or ``.parquet`` file.
        columns: Meaning -> column name of a file. The meanings are ``user``, ``item`` and
            ``timestamp``, and optionally ``rating``, ``title``, ``year`` and ``genres`` (separated
            by ``|``).
        min_rating: Lower ratings are removed. Data without ratings is not filtered.
        min_user_count: Minimum number of interactions per user, enforced by an iterated k-core.
        min_item_count: Minimum number of interactions per item, enforced in the same way.
        split: ``leave_last_out`` uses each user's last item for test and the one before for
            validation; ``time`` splits at two points in time, so that no training interaction is
            later than an evaluation target.
        max_length: Maximum length of a history that a network sees.
        batch_size: Number of windows per batch on each rank.
        evaluation_batch_size: Number of users per batch in validation, test and prediction.
        predict_users: Number of users to plan paths for; None means all.
        min_target_count: Minimum number of training interactions of a path's target.
        seed: Seed of the order of windows, and of the users and targets for prediction.

    Attributes:
        num_items: Number of items.
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
        split: SplitName = "leave_last_out",
        max_length: int = 50,
        batch_size: int = 128,
        evaluation_batch_size: int = 512,
        predict_users: int | None = 200,
        min_target_count: int = 10,
        seed: int = 0,
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
        if split not in ("leave_last_out", "time"):
            raise ValueError(f"split={split!r}: expected 'leave_last_out' or 'time'")
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
        self._is_read = False

    def setup(self, stage: str | None = None) -> None:
        """Read the data on the first call."""
        if self._is_read:
            return
        table = self._filtered(read_interactions(self.source, self.columns))
        names, numbers = np.unique(table.items, return_inverse=True)
        ids = names.tolist()
        self.catalogue = Catalogue([table.facts.get(name, Item(str(name))) for name in ids], ids)
        self.user_ids = tuple(np.unique(table.users).tolist())
        self.profiles = tuple(table.profiles.get(name, "") for name in self.user_ids)
        self.num_items = len(names)
        sequences, timestamps = _by_user(table, numbers + 1)
        self.parts = (
            leave_last_out(sequences)
            if self.split == "leave_last_out"
            else split_by_time(sequences, timestamps)
        )
        trained = np.concatenate(self.parts.train)
        self.item_counts = torch.from_numpy(np.bincount(trained, minlength=len(self.catalogue)))
        self._sequences = sequences
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
        """Draw users, with their whole history, and one unseen target for each."""
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

    def _filtered(self, table: InteractionTable) -> InteractionTable:
        if table.ratings is not None:
            table = table.rows(table.ratings >= self.min_rating)
        table = table.rows(np.argsort(table.timestamps, kind="stable"))
        # np.unique returns the first occurrence, which is the earliest interaction.
        pairs = np.stack([table.users, table.items]) if len(table) else np.empty((2, 0))
        table = table.rows(np.sort(np.unique(pairs, axis=1, return_index=True)[1]))
        table = table.rows(
            k_core(table.users, table.items, self.min_user_count, self.min_item_count)
        )
        if not len(table):
            raise ValueError(
                f"source={self.source!r}: no interaction is left with "
                f"min_rating={self.min_rating}, "
                f"min_user_count={self.min_user_count} and min_item_count={self.min_item_count}; "
                "lower them"
            )
        return table

    def _question_loader(self, questions: list[Question]) -> DataLoader:
        longest = max((len(question.history) for question in questions), default=1)
        dataset = Questions(questions, self.max_length, longest)
        return DataLoader(dataset, batch_size=self.evaluation_batch_size)


class Windows(Dataset):
    """Windows of ``max_length + 1`` items, counted from the end of each sequence.

    The last item of a window is also the first item of the next. Each item of a sequence except the
    first is therefore a target exactly once.
    """

    def __init__(self, sequences: Sequence[np.ndarray], max_length: int) -> None:
        self.length = max_length + 1
        self.windows = [
            sequence[max(0, end - self.length) : end]
            for sequence in sequences
            for end in range(len(sequence), 1, -max_length)
        ]

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Tensor:
        return _padded(self.windows[index], self.length)


class Questions(Dataset):
    """Questions as dictionaries of tensors, padded to equal lengths."""

    def __init__(self, questions: list[Question], max_length: int, longest: int) -> None:
        self.questions = questions
        self.max_length = max_length
        self.longest = longest

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        question = self.questions[index]
        return {
            "user": question.user,
            "history": _padded(question.history[-self.max_length :], self.max_length),
            "seen": _padded(question.history, self.longest),
            "target": question.target,
        }


def _padded(items: np.ndarray, length: int) -> Tensor:
    padded = torch.zeros(length, dtype=torch.int64)
    padded[: len(items)] = torch.from_numpy(np.ascontiguousarray(items))
    return padded


def _by_user(
    table: InteractionTable, item_numbers: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    users = np.unique(table.users, return_inverse=True)[1]
    order = np.argsort(users, kind="stable")  # keeps the chronological order within a user
    starts = np.flatnonzero(np.diff(users[order])) + 1
    return np.split(item_numbers[order], starts), np.split(table.timestamps[order], starts)
