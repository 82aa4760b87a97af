"""Splits of each user's interactions into training sequences and evaluation questions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Question:
    """A user's history, and the item that came next.

    Args:
        user: place of the user in the data.
        history: item numbers in the order of time.
        target: item number.
    """

    user: int
    history: np.ndarray
    target: int


@dataclass(frozen=True)
class Split:
    """Item numbers of each user to train on, and questions for validation and test."""

    train: list[np.ndarray]
    validation: list[Question]
    test: list[Question]


def leave_last_out(sequences: Sequence[np.ndarray]) -> Split:
    """The last item of each user for test, the one before for validation, the others to train.

    Users with fewer than three items are trained on whole and asked nothing.
    """
    train, validation, test = [], [], []
    for user, items in enumerate(sequences):
        is_asked = len(items) >= 3
        train.append(items[:-2] if is_asked else items)
        if is_asked:
            validation.append(Question(user, items[:-2], int(items[-2])))
            test.append(Question(user, items[:-1], int(items[-1])))
    return Split(train, validation, test)


def split_by_time(
    sequences: Sequence[np.ndarray],
    timestamps: Sequence[np.ndarray],
    validation_share: float = 0.1,
    test_share: float = 0.1,
) -> Split:
    """Two points in time, the same for all: training sees nothing that came after the first.

    A user is asked for the first item after a point, given all before it. The points are the
    times after which ``validation_share + test_share`` and ``test_share`` of all interactions lie.

    Args:
        sequences: item numbers of each user in the order of time.
        timestamps: of the same interactions.
        validation_share: of interactions between the points, in (0, 1).
        test_share: of interactions after the second point, in (0, 1).
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
