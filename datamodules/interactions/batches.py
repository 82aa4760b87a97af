"""Windows for training, and questions for evaluation, as tensors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_plugins.datamodules.interactions.splits import Question


class Windows(Dataset):
    """Windows of ``max_length + 1`` items, counted from the end of each sequence.

    The last item of a window is also the first item of the next. Each item of a sequence except the
    first is therefore a target exactly once. A window is a dictionary with ``user``, the number of
    its sequence, and ``items``, int64 ``(max_length + 1,)``.
    """

    def __init__(self, sequences: Sequence[np.ndarray], max_length: int) -> None:
        self.length = max_length + 1
        self.windows = [
            (user, sequence[max(0, end - self.length) : end])
            for user, sequence in enumerate(sequences)
            for end in range(len(sequence), 1, -max_length)
        ]

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        user, items = self.windows[index]
        return {"user": user, "items": _padded(items, self.length)}


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
