"""Runs a paper's cells, one process a core, and keeps each the moment it is finished."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from lightning_plugins.claims.cache import CellIdentity, CellRecord, ResultStore
from lightning_plugins.claims.claim import Paper
from lightning_plugins.claims.near_names import suggestion
from lightning_plugins.claims.results import Failure, Results
from lightning_plugins.claims.sources import source_sha256, versions
from lightning_plugins.claims.worker import CellTask, run_cell

BACKENDS = ("loky", "dask", "ray")


def run_paper(
    paper: Paper,
    scale: str,
    output: str | Path,
    jobs: int | None = None,
    backend: str = "loky",
    fresh: bool = False,
    echo: Callable[[str], None] = print,
) -> Results:
    """Run every (experiment, arm, seed) of a paper at a scale that is not finished already.

    Each worker process computes with one thread and writes its cell to ``output/cells`` itself,
    so that a killed run, started again, computes only what is missing. With ``jobs=1`` the cells
    run in this process, one after the other.

    Args:
        paper: the paper.
        scale: a scale of the paper; experiments and arms that it does not run are left out.
        output: folder of the results.
        jobs: processes; None means one a core.
        backend: ``loky`` on this machine; ``dask`` or ``ray`` on a cluster that is set up.
        fresh: compute finished cells again.
        echo: called with each line of progress.

    Returns:
        The cells, and in place of a cell that raised its error in one line.

    Raises:
        ValueError: for an unknown scale or backend, or ``jobs`` below 1.
        ImportError: naming what to install for the backend.
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
    store = ResultStore(Path(output) / "cells")
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
    )


def _tasks(paper: Paper, scale: str, store: ResultStore) -> list[CellTask]:
    installed = versions()
    tasks = []
    for experiment in paper.experiments:
        sources = source_sha256(experiment.run)
        rules = {
            claim.name: claim.rule_sha256
            for claim in paper.claims
            if claim.experiment == experiment.name
        }
        for seed in experiment.scale(scale).seeds:
            for arm in experiment.arms:
                identity = CellIdentity(
                    paper=paper.name,
                    experiment=experiment.name,
                    arm=arm,
                    scale=scale,
                    seed=seed,
                    config=experiment.config(arm, scale),
                    source_sha256=sources,
                    versions=installed,
                )
                tasks.append(CellTask(experiment.run, identity, rules, store))
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
        for done in _parallel(tasks, jobs, backend):
            waiting.pop(done.key, None)
            yield done.outcome
    except BrokenExecutor:
        for task in waiting.values():
            stored = task.store.load(task.identity)
            yield stored or task.failure("its worker process was killed (out of memory?)")


@dataclass(frozen=True)
class _Done:
    key: str
    outcome: CellRecord | Failure


def _run_keyed(task: CellTask) -> _Done:
    return _Done(task.identity.key, run_cell(task))


def _parallel(tasks: Sequence[CellTask], jobs: int | None, backend: str) -> Iterator[_Done]:
    try:
        import joblib  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(
            'running claims needs joblib: pip install "lightning-plugins[report]"'
        ) from error
    with ExitStack() as stack:
        limits = {}
        if backend == "loky":
            # Sets OMP_NUM_THREADS and its kin before the worker starts, so before torch loads.
            limits = {"inner_max_num_threads": 1}
            jobs = min(jobs or joblib.cpu_count(), len(tasks))
        else:
            _connect(backend, stack)
        stack.enter_context(joblib.parallel_config(backend=backend, n_jobs=jobs or -1, **limits))
        as_they_come = "list" if backend == "ray" else "generator_unordered"
        parallel = joblib.Parallel(batch_size=1, return_as=as_they_come)
        yield from parallel(joblib.delayed(_run_keyed)(task) for task in tasks)


def _connect(backend: str, stack: ExitStack) -> None:
    """Make the cluster known to joblib; addresses come from the cluster's own configuration."""
    try:
        if backend == "dask":
            from dask.distributed import Client  # type: ignore[import-not-found]

            stack.enter_context(Client())
        else:
            from ray.util.joblib import register_ray  # type: ignore[import-not-found]

            register_ray()
    except ImportError as error:
        package = '"dask[distributed]"' if backend == "dask" else '"ray[default]"'
        raise ImportError(f"--backend {backend} needs: pip install {package}") from error


def _progress(done: CellRecord | Failure, count: int, total: int) -> str:
    if isinstance(done, Failure):
        return (
            f"[{count}/{total}] {done.experiment} {done.arm} seed {done.seed} FAILED: {done.error}"
        )
    cell = done.identity
    return f"[{count}/{total}] {cell.experiment} {cell.arm} seed {cell.seed}: {done.seconds:.1f} s"
