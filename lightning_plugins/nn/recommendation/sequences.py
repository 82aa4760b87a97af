"""Sequences of item numbers of different lengths as one tensor."""

from collections.abc import Sequence

import torch
from torch import Tensor


def padded(
    sequences: Sequence[Sequence[int]], max_length: int, device: torch.device | None = None
) -> Tensor:
    """The latest ``max_length`` items of each: int64 ``(sequences, max_length)``, 0 at the end."""
    rows = torch.zeros(len(sequences), max_length, dtype=torch.int64)
    for row, sequence in zip(rows, sequences, strict=True):
        latest = sequence[-max_length:]
        row[: len(latest)] = torch.tensor(latest, dtype=torch.int64)
    return rows.to(device)


def unpadded(rows: Tensor) -> list[list[int]]:
    """The item numbers of each row, without zeros."""
    return [[item for item in row if item] for row in rows.tolist()]
