"""Splits interactions into training sequences and evaluation questions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Question:
    """A user's history and the next item.

    Args:
        user: Number of the user.
        history: Item numbers in chronological order.
        target: Number of the next item.
    """

    user: int
    history: np.ndarray
    target: int


@dataclass(frozen=True)
class Split:
    """A training part, and evaluation questions.

    Args:
        train: Item numbers per user in chronological order.
        validation: Validation questions.
        test: Test questions.
    """

    train: list[np.ndarray]
    validation: list[Question]
    test: list[Question]


def leave_last_out(sequences: Sequence[np.ndarray]) -> Split:
    """Use each user's last item for test, the one before for validation, the others for training.

    All items of users with fewer than three items are used for training.
    """
    train, validation, test = [], [], []
    for user, items in enumerate(sequences):
        has_questions = len(items) >= 3
        train.append(items[:-2] if has_questions else items)
        if has_questions:
            validation.append(Question(user, items[:-2], int(items[-2])))
            test.append(Question(user, items[:-1], int(items[-1])))
    return Split(train, validation, test)


def split_by_time(
    sequences: Sequence[np.ndarray],
    timestamps: Sequence[np.ndarray],
    validation_share: float = 0.1,
    test_share: float = 0.1,
) -> Split:
    """Split at two points in time that are the same for all users.

    The training part contains only interactions up to the first point. A validation (test) question
    asks for the user's first item after the first (second) point, given all items before it. The
    points are quantiles of all timestamps.

    Args:
        sequences: Item numbers per user in chronological order.
        timestamps: Timestamps of the same interactions.
        validation_share: Share of interactions between the points, in (0, 1).
        test_share: Share of interactions after the second point, in (0, 1).
    """
    everything = np.concatenate(timestamps)
    points = np.quantile(everything, [1 - validation_share - test_share, 1 - test_share])
    train: list[np.ndarray] = []
    asked: tuple[list[Question], list[Question]] = ([], [])
    for user, (items, times) in enumerate(zip(sequences, timestamps, strict=True)):
        before = np.searchsorted(times, points, side="right")
        train.append(items[: before[0]])
        ends = (before[1], len(items))
        for start, end, questions in zip(before, ends, asked, strict=True):
            if 0 < start < end:
                questions.append(Question(user, items[:start], int(items[start])))
    return Split(train, *asked)


def split_as_given(sequences: Sequence[np.ndarray], parts: Sequence[np.ndarray]) -> Split:
    """Use published training, validation and test files.

    Each validation (test) item is a question of its own, given the user's items of the training
    part (and of the validation part). A validation or test item that a user also has in an earlier
    part is not asked for.

    Args:
        sequences: Item numbers per user in chronological order within each part.
        parts: 0, 1 or 2 for each item: training, validation, test.
    """
    train: list[np.ndarray] = []
    asked: tuple[list[Question], list[Question]] = ([], [])
    for user, (items, of_part) in enumerate(zip(sequences, parts, strict=True)):
        train.append(items[of_part == 0])
        for part, questions in enumerate(asked, start=1):
            history = np.concatenate([items[of_part == before] for before in range(part)])
            questions += [Question(user, history, int(item)) for item in items[of_part == part]]
    return Split(train, *asked)
