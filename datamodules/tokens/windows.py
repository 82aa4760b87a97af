"""Windows of tokens: of one file, of the files of a corpus, and of mixtures of corpora."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from torch import Tensor
from torch.utils.data import Dataset

from lightning_plugins.datamodules.keyed_permutation import KeyedPermutation, mixed_seed
from lightning_plugins.datamodules.tokens.token_file import map_tokens

Windows = Tensor | dict[str, Tensor]


class TokenWindows(Dataset):
    """Windows of ``context_length + 1`` tokens; consecutive windows of a file share one token.

    With ``end_of_document`` a window is a dictionary for a causal model of transformers, with int64
    tensors ``(context_length + 1,)``: ``input_ids``; ``position_ids``, which count from 0 in each
    document and at the start of the window; and ``labels``, equal to ``input_ids`` except for -100
    at the first token of each document, which cannot be predicted.

    Args:
        paths: Paths of the token files, whose windows follow each other.
        context_length: Targets per window.
        end_of_document: Token that ends a document, to separate documents; None does not.
    """

    def __init__(
        self, paths: Sequence[Path], context_length: int, end_of_document: int | None = None
    ) -> None:
        self.paths = tuple(paths)
        self.context_length = context_length
        self.end_of_document = end_of_document
        files = [map_tokens(path) for path in self.paths]
        self.num_tokens = sum(map(len, files))
        self._files = [_windows_of(tokens, context_length) for tokens in files]
        self._ends = np.cumsum([len(windows) for windows in self._files])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Windows:
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        return _first(self.batch([index]))

    def batch(self, indices: Sequence[int]) -> Windows:
        """Return several windows, with a first dimension of their number."""
        return as_batch(self.rows(np.asarray(indices, np.int64)), self.end_of_document)

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """Return the tokens of windows, unsigned ``(windows, context_length + 1)``."""
        return _gathered(self._files, self._ends, indices, self.context_length)

    def __reduce__(self) -> tuple:
        # Worker processes map the files themselves; a pickled map would contain all its data.
        return type(self), (self.paths, self.context_length, self.end_of_document)


class MixedWindows(Dataset):
    """A fixed number of windows of each of several corpora per epoch.

    A corpus is visited in passes; each pass is a permutation of its windows that depends on the
    seed and the number of the pass. An epoch takes the next windows of each corpus where the
    previous epoch ended. After any number of epochs, every window of a corpus was therefore used
    equally often, or once more than another.

    Args:
        parts: The windows of each corpus, with equal context length and document separation.
        per_epoch: Windows of each corpus in an epoch.
        seed: Seed of the permutations.
    """

    def __init__(self, parts: Sequence[TokenWindows], per_epoch: Sequence[int], seed: int) -> None:
        self.parts = tuple(parts)
        self.per_epoch = tuple(per_epoch)
        self.seed = seed
        self._ends = np.cumsum(per_epoch)
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose windows are returned."""
        self._epoch = epoch

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Windows:
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        return _first(self.batch([index]))

    def batch(self, indices: Sequence[int]) -> Windows:
        """Return several windows, with a first dimension of their number."""
        places = np.asarray(indices, np.int64)
        owners = np.searchsorted(self._ends, places, side="right")
        first = self.parts[0]
        found = np.empty((len(places), first.context_length + 1), np.uint32)
        for owner in np.unique(owners):
            here = np.flatnonzero(owners == owner)
            start = self._ends[owner] - self.per_epoch[owner]
            found[here] = self.parts[owner].rows(self._windows(owner, places[here] - start))
        return as_batch(found, first.end_of_document)

    def _windows(self, owner: int, places: np.ndarray) -> np.ndarray:
        size = len(self.parts[owner])
        places = places + self._epoch * self.per_epoch[owner]
        passes, places = np.divmod(places, size)
        found = np.empty_like(places)
        for number in np.unique(passes):
            here = passes == number
            key = mixed_seed(self.seed, int(owner), int(number))
            found[here] = KeyedPermutation(size, key)(places[here])
        return found


def as_batch(rows: np.ndarray, end_of_document: int | None) -> Windows:
    """Convert unsigned tokens ``(windows, length)`` to tensors; see :class:`TokenWindows`."""
    tokens = rows.astype(np.int64)
    if end_of_document is None:
        return torch.from_numpy(tokens)
    is_first = np.zeros(tokens.shape, bool)
    np.equal(rows[:, :-1], end_of_document, out=is_first[:, 1:])
    places = np.arange(tokens.shape[1])
    starts = np.maximum.accumulate(is_first * places, axis=1)
    found = {
        "input_ids": tokens,
        "position_ids": places - starts,
        "labels": np.where(is_first, -100, tokens),
    }
    return {name: torch.from_numpy(part) for name, part in found.items()}


def _first(batch: Windows) -> Windows:
    if isinstance(batch, dict):
        return {name: part[0] for name, part in batch.items()}
    return batch[0]


def _windows_of(tokens: np.ndarray, context_length: int) -> np.ndarray:
    """Return a view ``(windows, context_length + 1)`` of the tokens."""
    count = max(len(tokens) - 1, 0) // context_length
    strides = (context_length * tokens.itemsize, tokens.itemsize)
    return as_strided(tokens, (count, context_length + 1), strides, writeable=False)


def _gathered(
    files: Sequence[np.ndarray], ends: np.ndarray, indices: np.ndarray, context_length: int
) -> np.ndarray:
    if len(files) == 1:
        return files[0][indices]
    owners = np.searchsorted(ends, indices, side="right")
    found = np.empty((len(indices), context_length + 1), np.uint32)
    for owner in np.unique(owners):
        here = owners == owner
        found[here] = files[owner][indices[here] - (ends[owner] - len(files[owner]))]
    return found
