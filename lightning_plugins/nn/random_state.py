"""Saves and restores the global random generators of Python, NumPy and torch."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class RandomState:
    """The states of the process-wide random generators.

    Attributes:
        python: ``random.getstate()``.
        numpy: ``numpy.random.get_state()`` of the legacy global generator, which data augmentation
            uses.
        torch: The state of torch's CPU generator, a byte tensor.
        cuda: The states of the requested CUDA generators, by device index.
    """

    python: tuple[Any, ...]
    numpy: tuple[Any, ...]
    torch: Tensor
    cuda: dict[int, Tensor]

    @classmethod
    def capture(cls, cuda_devices: tuple[int, ...] = ()) -> "RandomState":
        """Read the states; ``cuda_devices`` are the indices of the devices to include."""
        return cls(
            python=random.getstate(),
            numpy=np.random.get_state(),  # type: ignore[arg-type]  # noqa: NPY002
            torch=torch.get_rng_state(),
            cuda={device: torch.cuda.get_rng_state(device) for device in cuda_devices},
        )

    def restore(self) -> None:
        """Set the generators to the saved states."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)  # noqa: NPY002
        torch.set_rng_state(self.torch)
        for device, state in self.cuda.items():
            torch.cuda.set_rng_state(state, device)

    def to_plain(self) -> dict[str, Any]:
        """Return tensors and plain data, which ``torch.load(weights_only=True)`` can read."""
        version, words, gauss = self.python
        generator, keys, position, has_gauss, cached_gauss = self.numpy
        return {
            "python": [version, torch.tensor(words, dtype=torch.int64), gauss],
            "numpy": [
                str(generator),
                torch.from_numpy(np.asarray(keys).astype(np.int64)),
                int(position),
                int(has_gauss),
                float(cached_gauss),
            ],
            "torch": self.torch,
            "cuda": dict(self.cuda),
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "RandomState":
        """Create the object from the result of :meth:`to_plain`."""
        version, words, gauss = plain["python"]
        generator, keys, position, has_gauss, cached_gauss = plain["numpy"]
        numpy_keys = keys.numpy().astype(np.uint32)
        return cls(
            python=(version, tuple(words.tolist()), gauss),
            numpy=(generator, numpy_keys, position, has_gauss, cached_gauss),
            torch=plain["torch"],
            cuda=plain["cuda"],
        )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the CPU generators inside the block, and restore their states afterwards."""
    before = RandomState.capture()
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        before.restore()
