"""Permutations of any size that are computed at single places, and the seeds of such orders."""

import numpy as np

_ROUNDS = 8


class KeyedPermutation:
    """A pseudo-random permutation of ``0 ... size - 1`` in constant memory.

    A Feistel network permutes the smallest set of ``2^bits`` numbers that contains all places.
    Numbers outside of the permutation are permuted again until one is inside (cycle walking), which
    takes less than two turns on average.

    Source: Black and Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002, sections 3 and 4,
    with halves that may differ by one bit, and splitmix64 as the round function.

    Args:
        size: Number of places.
        key: Selects the permutation, from 0 to 2^63 - 1.
    """

    def __init__(self, size: int, key: int) -> None:
        self.size = size
        bits = max(size - 1, 1).bit_length()
        self._low_bits = np.uint64(bits // 2)
        self._low_mask = np.uint64((1 << bits // 2) - 1)
        self._high_mask = np.uint64((1 << bits - bits // 2) - 1)
        start = np.arange(1, _ROUNDS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        self._keys = _mixed(start ^ _mixed(np.array([key], np.uint64)))

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """Return the elements int64 at ``places``, integers from 0 to ``size - 1``."""
        found = self._turn(places.astype(np.uint64))
        outside = np.flatnonzero(found >= self.size)
        while len(outside):
            found[outside] = self._turn(found[outside])
            outside = outside[found[outside] >= self.size]
        return found.astype(np.int64)

    def _turn(self, numbers: np.ndarray) -> np.ndarray:
        high, low = numbers >> self._low_bits, numbers & self._low_mask
        for number, key in enumerate(self._keys):
            if number % 2:
                low = low ^ (_mixed(high ^ key) & self._low_mask)
            else:
                high = high ^ (_mixed(low ^ key) & self._high_mask)
        return (high << self._low_bits) | low


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Mix the bits of each number (splitmix64)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def mixed_seed(*numbers: int) -> int:
    """Combine integers into one 63-bit seed (splitmix64); similar inputs give unrelated seeds."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1
