"""A store of torch.distributed whose traffic is recorded."""

from collections.abc import Callable, Sequence
from datetime import timedelta

from torch.distributed import Store

_HEADER_BYTES = 9
"""TCPStore sends a byte for the kind of request, and 8 for each length."""


class BookedStore:
    """Passes calls to a store and records their bytes, in both directions.

    Args:
        store: The store; :attr:`plain` for process groups, which require torch's own class.
        book: Called with the bytes and the number of messages of each call.
    """

    def __init__(self, store: Store, book: Callable[[int, int], None]) -> None:
        self.plain = store
        self._book = book

    def set(self, key: str, value: str | bytes) -> None:
        """See ``torch.distributed.Store.set``."""
        self.plain.set(key, value)  # type: ignore[arg-type]
        self._record([key], len(value) + _HEADER_BYTES, 1)

    def get(self, key: str) -> bytes:
        """See ``torch.distributed.Store.get``."""
        value = self.plain.get(key)
        self._record([key], len(value) + _HEADER_BYTES, 2)
        return value

    def multi_get(self, keys: list[str]) -> list[bytes]:
        """See ``torch.distributed.Store.multi_get``."""
        values = self.plain.multi_get(keys)
        self._record(keys, sum(len(value) + _HEADER_BYTES for value in values), 2)
        return values

    def check(self, keys: list[str]) -> bool:
        """See ``torch.distributed.Store.check``."""
        found = self.plain.check(keys)
        self._record(keys, 1, 2)
        return found

    def wait(self, keys: list[str], timeout: timedelta) -> None:
        """See ``torch.distributed.Store.wait``."""
        self.plain.wait(keys, timeout)
        self._record(keys, 1, 2)

    def compare_set(self, key: str, expected: str, desired: str) -> bytes:
        """See ``torch.distributed.Store.compare_set``."""
        value = self.plain.compare_set(key, expected, desired)
        sent = len(expected) + len(desired) + len(value) + 3 * _HEADER_BYTES
        self._record([key], sent, 2)
        return value

    def delete_key(self, key: str) -> bool:
        """See ``torch.distributed.Store.delete_key``."""
        deleted = self.plain.delete_key(key)
        self._record([key], _HEADER_BYTES, 2)
        return deleted

    def _record(self, keys: Sequence[str], other_bytes: int, messages: int) -> None:
        self._book(sum(len(key) + _HEADER_BYTES for key in keys) + other_bytes, messages)
