"""Many designs that differ in one input: each starts from its neighbour's solution."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from lightning_plugins.simulators.fiber_laser.amplifier import PhysicalWarning
from lightning_plugins.simulators.fiber_laser.paths import with_value
from lightning_plugins.simulators.fiber_laser.steady_state import ConvergenceError

Figures = dict[str, float]


class Solvable(Protocol):
    """An amplifier, a chain or a design."""

    def solve(self, *, guess: Any = None) -> Any:
        """The steady state, from the result of a similar one."""


def summary(result: Any) -> Figures:
    """The figures that a result itself puts first."""
    return dict(result.summary())


def sweep(
    design: Solvable,
    path: str,
    values: Sequence[float],
    figures: Callable[[Any], Figures] = summary,
    jobs: int = 1,
    backend: str = "loky",
) -> list[Figures]:
    """Figures of a design at each value of one of its inputs, in the order of the values.

    Args:
        design: an amplifier, a chain or a design.
        path: the input, such as ``pumps[0].power_w`` or ``chain.stages[2].fiber.length_m``.
        values: in the unit that the input's name says; neighbours should be near each other.
        figures: what to keep of a result.
        jobs: processes; with several, each has a contiguous part (needs joblib).
        backend: of joblib: ``loky``, ``threading``, or one registered with it (dask, ray).

    Raises:
        ConvergenceError: naming the value; a sweep never leaves a gap silently.
        ImportError: ``jobs`` above 1 without joblib.
    """
    if jobs < 1:
        raise ValueError(f"jobs = {jobs}: allowed is at least 1")
    if jobs == 1 or len(values) < 2:
        return _in_order(design, path, values, figures)
    try:
        from joblib import Parallel, delayed  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError("jobs above 1 need joblib: pip install joblib") from error
    parts = np.array_split(np.asarray(values, dtype=float), min(jobs, len(values)))
    done = Parallel(n_jobs=jobs, backend=backend)(
        delayed(_in_order)(design, path, part.tolist(), figures) for part in parts
    )
    return [one for part in done for one in part]


def _in_order(
    design: Solvable, path: str, values: Sequence[float], figures: Callable[[Any], Figures]
) -> list[Figures]:
    found, guess = [], None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhysicalWarning)
        for value in values:
            changed = with_value(design, path, float(value))
            try:
                guess = changed.solve(guess=guess)
            except ConvergenceError as error:
                raise ConvergenceError(f"{path} = {value:g}: {error}") from error
            found.append(figures(guess))
    return found
