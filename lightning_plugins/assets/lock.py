"""A lock between processes that is released when its holder exits or is killed."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def process_lock(path: Path, on_wait: Callable[[], None]) -> Iterator[bool]:
    """Hold the lock on the file ``path`` for the duration of the ``with`` block.

    The kernel releases the lock when the holder exits, also after SIGKILL, so no lock is stale.

    Args:
        path: The lock file; it is created and not deleted.
        on_wait: Called once when another process holds the lock.

    Yields:
        Whether the lock is held; ``False`` on file systems without locks.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield _acquire(descriptor, on_wait)
    finally:
        os.close(descriptor)


if sys.platform == "win32":
    import msvcrt
    import time

    def _acquire(descriptor: int, on_wait: Callable[[], None]) -> bool:
        waited = False
        while True:
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
                return True
            except PermissionError:
                if not waited:
                    on_wait()
                waited = True
                time.sleep(0.2)
            except OSError:
                return False

else:
    import fcntl

    def _acquire(descriptor: int, on_wait: Callable[[], None]) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            # Lustre and some NFS mounts do not support flock.
            return False
        return True
