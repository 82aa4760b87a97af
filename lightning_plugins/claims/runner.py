"""Runs a paper's cells, one process per core, and stores each cell as soon as it is finished."""

import copy
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightning_plugins.claims.cell import Cell, checked_cell
from lightning_plugins.claims.claim import Paper, suggestion
from lightning_plugins.claims.fingerprints import versions
from lightning_plugins.claims.import_closure import closure_of_run
from lightning_plugins.claims.result_store import (
    CellIdentity,
    CellRecord,
    ResultStore,
)
from lightning_plugins.claims.results import Failure, Results
from lightning_plugins.claims.row_files import RowFiles
from lightning_plugins.optional_packages import requires
from lightning_plugins.reports.writer import write_text_atomically

BACKENDS = ("loky", "dask", "ray")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def run_paper(
    paper: Paper,
    scale: str,
    output: str | Path,
    jobs: int | None = None,
    backend: str = "loky",
    fresh: bool = False,
    rows: RowFiles | None = None,
    looks: tuple[int, ...] = (),
    echo: Callable[[str], None] = print,
) -> Results:
    """Run every (experiment, arm, seed) of a paper at a scale that is not finished yet.

    Each worker process computes with one thread and writes its cell to ``output/cells`` itself.
    An interrupted run that is started again computes only the missing cells. With ``jobs=1`` the
    cells run one after the other in this process.

    Args:
        paper: The paper.
        scale: A scale of the paper; experiments and arms without this scale are skipped.
        output: Folder for the results.
        jobs: Number of processes; None means one per core.
        backend: ``loky`` on this machine; ``dask`` or ``ray`` on a configured cluster.
        fresh: Whether to compute finished cells again.
        rows: Committed rows of finished cells, which are reused.
        looks: Planned numbers of seeds at which the run may be stopped.
        echo: Called with each progress line.

    Returns:
        The cells; for a cell that raised an exception, the error in one line.

    Raises:
        ValueError: For an unknown scale or backend, or ``jobs`` below 1.
        ImportError: If the backend is not installed; names the package to install.
    """
    if backend not in BACKENDS:
        raise ValueError(
            f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}"
            f"{suggestion(backend, BACKENDS)}"
        )
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs!r}")
    started = time.monotonic()
    paper = paper.at(scale)
    store = ResultStore(Path(output) / "cells", rows)
    tasks = _tasks(paper, scale, store)
    rules_seen = tuple(store.rules_seen(paper.name, scale))
    finished = [] if fresh else [record for task in tasks if (record := store.load(task.identity))]
    known = {record.identity.key for record in finished}
    missing = [task for task in tasks if task.identity.key not in known]
    echo(
        f"{paper.name}, scale {scale}: {len(tasks)} cells, reusing {len(finished)} finished, "
        f"running {len(missing)}"
    )
    records, failures = list(finished), []
    for done in _outcomes(missing, jobs, backend):
        if isinstance(done, CellRecord):
            records.append(done)
            if not store.path(done.identity).exists():  # a cluster without a shared folder
                store.save(done)
        else:
            failures.append(done)
        echo(_progress(done, len(records) + len(failures), len(tasks)))
    order = {task.identity.key: place for place, task in enumerate(tasks)}
    records.sort(key=lambda record: order[record.identity.key])
    return Results(
        paper=paper,
        scale=scale,
        records=tuple(records),
        failures=tuple(sorted(failures, key=lambda f: (f.experiment, f.arm, f.seed))),
        reused=len(finished),
        seconds=time.monotonic() - started,
        rules_seen=rules_seen,
        looks=looks,
    )


@dataclass(frozen=True)
class CellTask:
    """Everything that a worker process needs to compute one cell."""

    run: Callable[[dict[str, Any], int], Cell]
    identity: CellIdentity
    rules: dict[str, str]
    store: ResultStore
    sources: tuple[str, ...] = ()

    def failure(self, error: str) -> Failure:
        """Return this cell as a failure."""
        return Failure(self.identity.experiment, self.identity.arm, self.identity.seed, error)


def run_cell(task: CellTask) -> CellRecord | Failure:
    """Compute a cell with one thread and store it.

    An exception (or the ``SystemExit`` of a command line) becomes a :class:`Failure`; its
    traceback is written next to the cells.
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
        sources=task.sources,
        seconds=time.monotonic() - started,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    task.store.save(record)
    trace.unlink(missing_ok=True)
    return record


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one compute thread, as every worker process does, so that ``jobs`` changes no result."""
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


def _tasks(paper: Paper, scale: str, store: ResultStore) -> list[CellTask]:
    tasks = []
    for experiment in paper.experiments:
        configs = {arm: experiment.config(arm, scale) for arm in experiment.arms}
        closures = {arm: closure_of_run(experiment.run, configs[arm]) for arm in configs}
        hashes = {arm: closure.sha256() for arm, closure in closures.items()}
        rules = {
            claim.name: claim.rule_sha256
            for claim in paper.claims
            if claim.experiment == experiment.name
        }
        for seed in experiment.scale(scale).seeds:
            for arm, closure in closures.items():
                identity = CellIdentity(
                    paper=paper.name,
                    experiment=experiment.name,
                    arm=arm,
                    scale=scale,
                    seed=seed,
                    config=configs[arm],
                    source_sha256=hashes[arm],
                    versions=versions(closure.packages),
                )
                tasks.append(CellTask(experiment.run, identity, rules, store, closure.names))
    return tasks


def _outcomes(
    tasks: Sequence[CellTask], jobs: int | None, backend: str
) -> Iterator[CellRecord | Failure]:
    if not tasks:
        return
    if jobs == 1 and backend == "loky":
        yield from map(run_cell, tasks)
        return
    waiting = {task.identity.key: task for task in tasks}
    try:
        for key, outcome in _parallel(tasks, jobs, backend):
            waiting.pop(key, None)
            yield outcome
    except BrokenExecutor:
        for task in waiting.values():
            stored = task.store.load(task.identity)
            yield stored or task.failure("its worker process was killed (out of memory?)")


def _run_keyed(task: CellTask) -> tuple[str, CellRecord | Failure]:
    return task.identity.key, run_cell(task)


def _parallel(
    tasks: Sequence[CellTask], jobs: int | None, backend: str
) -> Iterator[tuple[str, CellRecord | Failure]]:
    with requires("joblib", by="lightning-plugins reproduce", extra="report"):
        import joblib  # type: ignore[import-untyped]
    with ExitStack() as stack:
        limits = {}
        if backend == "loky":
            # Sets OMP_NUM_THREADS and similar before the worker starts, so before torch loads.
            limits = {"inner_max_num_threads": 1}
            jobs = min(jobs or joblib.cpu_count(), len(tasks))
        else:
            _connect(backend, stack)
        stack.enter_context(joblib.parallel_config(backend=backend, n_jobs=jobs or -1, **limits))
        order = "list" if backend == "ray" else "generator_unordered"
        parallel = joblib.Parallel(batch_size=1, return_as=order)
        yield from parallel(joblib.delayed(_run_keyed)(task) for task in tasks)


def _connect(backend: str, stack: ExitStack) -> None:
    """Connect joblib to the cluster; addresses come from the cluster's own configuration."""
    try:
        if backend == "dask":
            from dask.distributed import Client  # type: ignore[import-not-found]

            stack.enter_context(Client())
        else:
            from ray.util.joblib import register_ray  # type: ignore[import-not-found]

            register_ray()
    except ImportError as error:
        package = '"dask[distributed]"' if backend == "dask" else '"ray[default]"'
        raise ImportError(f"--backend {backend} requires: pip install {package}") from error


def _progress(done: CellRecord | Failure, count: int, total: int) -> str:
    if isinstance(done, Failure):
        return (
            f"[{count}/{total}] {done.experiment} {done.arm} seed {done.seed} FAILED: {done.error}"
        )
    cell = done.identity
    return f"[{count}/{total}] {cell.experiment} {cell.arm} seed {cell.seed}: {done.seconds:.1f} s"
