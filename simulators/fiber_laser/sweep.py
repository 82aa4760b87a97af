"""Parameter sweeps, and the spread of a design's figures over several glasses."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np

from .amplifier import Amplifier, PhysicalWarning
from .chain import Chain
from .design import Design
from .parameter_paths import with_value
from .spectroscopy import Spectroscopy
from .steady_state import ConvergenceError
from .ytterbium import ytterbium_band

Figures = dict[str, float]
_Simulated = TypeVar("_Simulated", Amplifier, Chain, Design)


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


@dataclass(frozen=True)
class Band:
    """A figure over several spectroscopies.

    Args:
        by_glass: its value for each, by the spectroscopy's name.
    """

    by_glass: dict[str, float]

    @property
    def low(self) -> float:
        """The smallest value."""
        return min(self.by_glass.values())

    @property
    def high(self) -> float:
        """The largest value."""
        return max(self.by_glass.values())


def band_over_glasses(
    design: _Simulated,
    figures: Callable[[Any], Figures] = summary,
    glasses: Sequence[Spectroscopy] | None = None,
) -> dict[str, Band]:
    """Every figure of a design over several spectroscopies: its uncertainty from cross-sections.

    Args:
        design: an amplifier, a chain, or a design, whose seed laser gets the glass as well.
        figures: what to keep of a result.
        glasses: spectroscopies of different names; default: the five parametric ones, at the
            temperature and with the lifetime of the design's.

    Raises:
        ConvergenceError: a steady state was not found.
    """
    if glasses is None:
        own = (design.chain if isinstance(design, Design) else design).spectroscopy
        glasses = [one.at_temperature(own.temperature_k) for one in ytterbium_band(own.lifetime_s)]
    names = [glass.name for glass in glasses]
    if len(set(names)) != len(names) or not names:
        raise ValueError(f"glasses: expected spectroscopies of different names, got {names}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhysicalWarning)
        found = [figures(with_glass(design, glass).solve()) for glass in glasses]
    return {
        figure: Band({name: one[figure] for name, one in zip(names, found, strict=True)})
        for figure in found[0]
    }


def with_glass(design: _Simulated, glass: Spectroscopy) -> _Simulated:
    """The design in another glass."""
    if not isinstance(design, Design):
        return replace(design, spectroscopy=glass)
    laser = design.seed_laser
    if laser is not None:
        laser = replace(laser, spectroscopy=glass)
    return replace(design, seed_laser=laser, chain=replace(design.chain, spectroscopy=glass))
