"""Saves and restores the global random generators of Python, NumPy and torch."""

import math
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

    def equals(self, other: "RandomState") -> bool:
        """Whether no generator was used between the two states."""
        words = (state.numpy[1] for state in (self, other))
        return (
            self.python == other.python
            and np.array_equal(*words)
            and self.numpy[2:] == other.numpy[2:]
            and torch.equal(self.torch, other.torch)
            and self.cuda.keys() == other.cuda.keys()
            and all(torch.equal(state, other.cuda[k]) for k, state in self.cuda.items())
        )

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
        """Create the object from the result of :meth:`to_plain`.

        Sizes, types and positions are checked, because NumPy reads outside its array if a stored
        position is wrong.

        Raises:
            ValueError: ``plain`` is not such a result.
        """
        try:
            version, words, gauss = plain["python"]
            generator, keys, position, has_gauss, cached_gauss = plain["numpy"]
            torch_state, cuda = plain["torch"], dict(plain["cuda"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise _refusal("it is incomplete") from error
        if version != 3 or not _is_words(words, _WORDS + 1) or int(words[-1]) > _WORDS:
            raise _refusal("the state of Python's generator has another form")
        if not (gauss is None or _is_finite(gauss)):
            raise _refusal("the state of Python's generator has another form")
        is_numpy = generator == "MT19937" and _is_words(keys, _WORDS)
        if not (is_numpy and _is_count(position, _WORDS) and _is_count(has_gauss, 1)):
            raise _refusal("the state of NumPy's generator has another form")
        if not _is_finite(cached_gauss):
            raise _refusal("the state of NumPy's generator has another form")
        if not _is_bytes(torch_state, len(torch.get_rng_state())):
            raise _refusal("the state of torch's generator has another form")
        for device, state in cuda.items():
            if not (_is_count(device, 1023) and _is_bytes(state, _CUDA_BYTES)):
                raise _refusal("the state of a CUDA generator has another form")
        return cls(
            python=(version, tuple(words.tolist()), gauss),
            numpy=(generator, keys.numpy().astype(np.uint32), position, has_gauss, cached_gauss),
            torch=torch_state,
            cuda=cuda,
        )


_WORDS = 624
"""Words of the Mersenne Twister, which Python and NumPy use."""
_CUDA_BYTES = 16


def _refusal(why: str) -> ValueError:
    return ValueError(f"the stored state of the random generators is refused: {why}")


def _is_words(value: Any, count: int) -> bool:
    is_vector = isinstance(value, Tensor) and value.dtype == torch.int64 and value.shape == (count,)
    return is_vector and int(value.min()) >= 0 and int(value.max()) < 2**32


def _is_bytes(value: Any, count: int) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.uint8 and value.shape == (count,)


def _is_count(value: Any, most: int) -> bool:
    return isinstance(value, int) and 0 <= value <= most


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


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
