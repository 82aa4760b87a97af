"""Plain data, tensors and paths as bytes, without unpickling what other processes send."""

import io
import pickle
from pathlib import PosixPath, WindowsPath
from typing import Any

import torch


def packed(value: Any) -> bytes:
    """Serialize plain data, tensors and paths."""
    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()


def unpacked(content: bytes) -> Any:
    """Restore :func:`packed` data.

    Raises:
        TypeError: It contains another type.
    """
    try:
        with torch.serialization.safe_globals([PosixPath, WindowsPath]):
            return torch.load(io.BytesIO(content), weights_only=True)
    except pickle.UnpicklingError as error:
        raise TypeError(
            "strategy.broadcast supports numbers, strings, paths, tensors, and lists and "
            f"dictionaries of these: {error}"
        ) from error
