"""One cell, computed and written where it runs."""

import copy
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lightning_plugins.claims.cache import CellIdentity, CellRecord, ResultStore, checked_cell
from lightning_plugins.claims.claim import Cell
from lightning_plugins.claims.results import Failure
from lightning_plugins.reports.atomic import write_text_atomically

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class CellTask:
    """What a worker process is handed."""

    run: Callable[[dict[str, Any], int], Cell]
    identity: CellIdentity
    rules: dict[str, str]
    store: ResultStore

    def failure(self, error: str) -> Failure:
        """This cell as a failure."""
        return Failure(self.identity.experiment, self.identity.arm, self.identity.seed, error)


def run_cell(task: CellTask) -> CellRecord | Failure:
    """Compute a cell with one thread and write it.

    An exception (or the ``SystemExit`` of a command line) becomes a :class:`Failure`; its
    traceback is written beside the cells.
    """
    started = time.monotonic()
    trace = task.store.path(task.identity).with_suffix(".error.txt")
    try:
        with _one_thread():
            config = copy.deepcopy(task.identity.config)
            metrics, series = checked_cell(task.run(config, task.identity.seed))
    except (Exception, SystemExit) as error:
        write_text_atomically(trace, traceback.format_exc())
        lines = str(error).strip().splitlines()
        return task.failure(f"{type(error).__name__}: {lines[0] if lines else ''} ({trace})")
    record = CellRecord(
        identity=task.identity,
        metrics=metrics,
        series=series,
        rules=task.rules,
        seconds=time.monotonic() - started,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    task.store.save(record)
    trace.unlink(missing_ok=True)
    return record


@contextmanager
def _one_thread() -> Iterator[None]:
    """One compute thread, as in every worker process, so that ``jobs`` does not change numbers."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else None
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    if torch:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if torch and threads:
            torch.set_num_threads(threads)
