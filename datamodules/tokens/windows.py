"""Windows of a token file, plain or with their documents apart."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_plugins.datamodules.tokens.token_file import read_token_file


class TokenWindows(Dataset):
    """Consecutive windows of ``context_length + 1`` tokens that share one token with the next.

    Args:
        path: of the token file.
        context_length: targets in a window.
    """

    def __init__(self, path: Path, context_length: int) -> None:
        self.path = path
        self.context_length = context_length
        self.tokens = read_token_file(path)

    def __len__(self) -> int:
        return (len(self.tokens) - 1) // self.context_length

    def __getitem__(self, index: int) -> Tensor:
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        start = index * self.context_length
        window = self.tokens[start : start + self.context_length + 1]
        return torch.from_numpy(window.astype(np.int64))

    def __reduce__(self) -> tuple:
        # Worker processes map the file themselves; a pickled map would be all of its content.
        return type(self), (self.path, self.context_length)


class DocumentWindows(TokenWindows):
    """The same windows, with what keeps the documents in them apart.

    Each is a dictionary as a causal model of transformers takes it, every tensor int64
    ``(context_length + 1,)``: ``input_ids``; ``position_ids``, from 0 in each document or, at the
    start of the window, in what is left of one; and ``labels``, the same as ``input_ids`` but -100
    at the first token of each document, which nothing before it tells.

    Args:
        path: of the token file.
        context_length: targets in a window.
        end_of_document: the token that ends a document.
    """

    def __init__(self, path: Path, context_length: int, end_of_document: int) -> None:
        super().__init__(path, context_length)
        self.end_of_document = end_of_document

    def __getitem__(self, index: int) -> dict[str, Tensor]:  # type: ignore[override]
        tokens = super().__getitem__(index)
        is_first = torch.zeros(len(tokens), dtype=torch.bool)
        is_first[1:] = tokens[:-1] == self.end_of_document
        places = torch.arange(len(tokens))
        starts = torch.where(is_first, places, 0).cummax(dim=0).values
        return {
            "input_ids": tokens,
            "position_ids": places - starts,
            "labels": tokens.masked_fill(is_first, -100),
        }

    def __reduce__(self) -> tuple:
        return type(self), (self.path, self.context_length, self.end_of_document)
