"""Sequences of interactions for training, full ranking, and planning."""

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

SplitName = Literal["leave_last_out", "time"]


class InteractionDataModule(LightningDataModule):
    """Who took which item when: MovieLens, RecBole's atomic files, or a table of yours.

    Items are numbered from 1, users from 0; sequences are in the order of time and end with zeros.
    Of a pair of user and item that comes again the first interaction counts.

    Training batches are int64 ``(batch, max_length + 1)``: windows in which every item but a
    user's first is a target once. Validation and test batches are dictionaries:

    - ``user``: int64 ``(batch,)``;
    - ``history``: int64 ``(batch, max_length)``, the latest items before the target;
    - ``seen``: int64 ``(batch, longest)``, all items before the target, to leave them out;
    - ``target``: int64 ``(batch,)``.

    Prediction gives the same for ``predict_users`` users drawn by ``seed``, with all that is known
    of them as history and, as target of a path, an item drawn uniformly from those that the user
    has not seen and that ``min_target_count`` users were trained on.

    Args:
        source: ``movielens-100k`` (an asset); a MovieLens folder (100K, 1M, latest, latest-small);
            a folder with an ``.inter`` file of RecBole; or a ``.csv`` or ``.parquet`` file.
        columns: meaning -> column of a file: ``user``, ``item``, ``timestamp``, and perhaps
            ``rating``, ``title``, ``year``, ``genres``, the last with ``|`` between.
        min_rating: lower ratings are left out; without ratings nothing is.
        min_user_count: interactions that each user has at least, by an iterated k-core.
        min_item_count: the same for items.
        split: ``leave_last_out``: the last item for test and the one before for validation;
            ``time``: nothing of training is later than what is asked for.
        max_length: items of a history that a network sees.
        batch_size: windows a batch on each rank.
        evaluation_batch_size: users a batch in validation, test and prediction.
        predict_users: users that paths are planned for; None for all.
        min_target_count: see above.
        seed: of the order of windows, and of users and targets for prediction.

    Attributes:
        num_items: items.
        catalogue: titles, years and genres by item number.
        parts: sequences to train on and questions, a :class:`Split`.
        item_counts: interactions of each item in the training part, int64 ``(num_items + 1,)``.

    Raises:
        ValueError: an argument outside its range, data without what it needs.
        FileNotFoundError: in ``setup``, no such source.
    """

    num_items: int
    catalogue: Catalogue
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
        """Read the data, once."""
        if self._is_read:
            return
        table = self._kept(read_interactions(self.source, self.columns))
        names, numbers = np.unique(table.items, return_inverse=True)
        self.catalogue = Catalogue([table.facts.get(name, Item(str(name))) for name in names])
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
        """Windows of the training part in an order of (seed, epoch)."""
        windows = Windows(self.parts.train, self.max_length)
        return ResumableDataLoader.for_trainer(
            self.trainer, windows, self.batch_size, seed=self.seed
        )

    def val_dataloader(self) -> DataLoader:
        """The validation questions, in order."""
        return self._asking(self.parts.validation)

    def test_dataloader(self) -> DataLoader:
        """The test questions, in order."""
        return self._asking(self.parts.test)

    def predict_dataloader(self) -> DataLoader:
        """Users and the targets of their paths."""
        return self._asking(self.path_questions())

    def path_questions(self) -> list[Question]:
        """Users with all they are known to have seen, and a target that they have not."""
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
                f"min_target_count={self.min_target_count}: no user has an unseen item with so "
                "many interactions; lower it"
            )
        return questions

    def _kept(self, table: InteractionTable) -> InteractionTable:
        if table.ratings is not None:
            table = table.rows(table.ratings >= self.min_rating)
        table = table.rows(np.argsort(table.timestamps, kind="stable"))
        # numpy's unique reports the first occurrence, here the earliest.
        pairs = np.stack([table.users, table.items]) if len(table) else np.empty((2, 0))
        table = table.rows(np.sort(np.unique(pairs, axis=1, return_index=True)[1]))
        table = table.rows(
            k_core(table.users, table.items, self.min_user_count, self.min_item_count)
        )
        if not len(table):
            raise ValueError(
                f"source={self.source!r}: nothing is left with min_rating={self.min_rating}, "
                f"min_user_count={self.min_user_count} and min_item_count={self.min_item_count}; "
                "lower them"
            )
        return table

    def _asking(self, questions: list[Question]) -> DataLoader:
        longest = max((len(question.history) for question in questions), default=1)
        dataset = Questions(questions, self.max_length, longest)
        return DataLoader(dataset, batch_size=self.evaluation_batch_size)


class Windows(Dataset):
    """Sequences cut into ``max_length + 1`` items, counted from the end of each.

    Neighbouring windows share one item, the last of one and first of the next, so that every item
    but the first of a sequence is a target exactly once.
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
    """Questions as dictionaries of tensors of equal length."""

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
    order = np.argsort(users, kind="stable")  # keeps the order of time within a user
    starts = np.flatnonzero(np.diff(users[order])) + 1
    return np.split(item_numbers[order], starts), np.split(table.timestamps[order], starts)
