"""Parameter sweeps, and the spread of a design's figures over several glasses."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np

from .amplifier import Amplifier, PhysicalWarning
from .chain import Chain
from .design import Design
from .parameter_paths import value_at, with_value
from .spectroscopy import Spectroscopy
from .steady_state import ConvergenceError
from .ytterbium import ytterbium_band

Figures = dict[str, float]
_Simulated = TypeVar("_Simulated", Amplifier, Chain, Design)


class Solvable(Protocol):
    """An amplifier, a chain or a design."""

    def solve(self, *, guess: Any = None) -> Any:
        """Return the steady state, from that of a similar one."""


class SweepWarning(UserWarning):
    """Some points of a sweep have no result."""


def summary(result: Any) -> Figures:
    """Return the main figures of a result."""
    return dict(result.summary())


def sweep(
    design: Solvable,
    path: str,
    values: Sequence[float],
    figures: Callable[[Any], Figures] = summary,
    jobs: int = 1,
    backend: str = "loky",
) -> list[Figures]:
    """Return the figures of a design at each value of one of its inputs, in the order of values.

    A point without a steady state, or with an invalid value, does not end the sweep: its figures
    are all nan, and a warning gives its value and the reason.

    Args:
        design: An amplifier, a chain or a design.
        path: The input, such as ``pumps[0].power_w`` or ``chain.stages[2].fiber.length_m``.
        values: Values in the unit of the input's name; each point starts from its neighbour's
            solution.
        figures: Function from a result to the figures to keep.
        jobs: Number of processes, each with a contiguous part of the values (requires joblib).
        backend: Backend of joblib: ``loky``, ``threading``, or a registered one (dask, ray).

    Raises:
        ValueError: Another input overwrites the input, or the path does not exist.
        ConvergenceError: No point has a steady state.
        ImportError: ``jobs`` is above 1 and joblib is missing.

    Warns:
        SweepWarning: A point failed.
    """
    if jobs < 1:
        raise ValueError(f"jobs = {jobs}: allowed is at least 1")
    require_effective(design, path)
    value_at(design, path)  # raises for a path that does not exist
    if jobs == 1 or len(values) < 2:
        found = _in_order(design, path, values, figures)
    else:
        found = _in_parts(design, path, values, figures, jobs, backend)
    names = next((list(one) for one in found if isinstance(one, dict)), None)
    failures = [pair for pair in zip(values, found, strict=True) if isinstance(pair[1], str)]
    if failures and names is None:
        raise ConvergenceError(f"{path}: no value has a steady state; {failures[0][1]}")
    for value, reason in failures:
        warnings.warn(f"{path} = {value:g}: {reason}", SweepWarning, stacklevel=2)
    points = [one for one in found if isinstance(one, dict)]
    if len(points) > 1 and all(_agrees(one, points[0]) for one in points):
        warnings.warn(f"{path} has no effect on any figure", SweepWarning, stacklevel=2)
    return [one if isinstance(one, dict) else dict.fromkeys(names or (), np.nan) for one in found]


def require_effective(design: Any, path: str) -> None:
    """Raise if another input of a design overwrites an input.

    Raises:
        ValueError: The output of the seed laser overwrites the input.
    """
    overwritten = ("chain.seed.power_w", "chain.seed.wavelength_nm", "chain.seed.direction")
    if not isinstance(design, Design):
        return
    if path.startswith("seed_mount."):
        raise ValueError(
            f"{path}: the mount affects only temperature tuning, not the steady state; use "
            "tuning_curve()"
        )
    if design.seed_laser is not None and path in overwritten:
        raise ValueError(
            f"{path}: the output of seed_laser overwrites chain.seed, so this input has no effect; "
            "vary an input of seed_laser, such as seed_laser.pump_power_w, or remove seed_laser"
        )


def _agrees(one: Figures, other: Figures) -> bool:
    numerical = ("photon_balance", "grid_error")
    return all(
        bool(np.isclose(value, other.get(name, np.nan), rtol=1e-7, atol=0, equal_nan=True))
        for name, value in one.items()
        if name not in numerical
    )


def _in_parts(
    design: Solvable,
    path: str,
    values: Sequence[float],
    figures: Callable[[Any], Figures],
    jobs: int,
    backend: str,
) -> list[Figures | str]:
    try:
        from joblib import Parallel, delayed  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError("jobs above 1 requires joblib: pip install joblib") from error
    parts = np.array_split(np.asarray(values, dtype=float), min(jobs, len(values)))
    done = Parallel(n_jobs=jobs, backend=backend)(
        delayed(_in_order)(design, path, part.tolist(), figures) for part in parts
    )
    return [one for part in done for one in part]


def _in_order(
    design: Solvable, path: str, values: Sequence[float], figures: Callable[[Any], Figures]
) -> list[Figures | str]:
    """Return the figures of each point, or the reason why it has none."""
    found: list[Figures | str] = []
    guess = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhysicalWarning)
        for value in values:
            try:
                result = with_value(design, path, float(value)).solve(guess=guess)
            except (ConvergenceError, ValueError) as error:
                found.append(f"{type(error).__name__}: {error}")
                continue
            guess = result
            found.append(figures(result))
    return found


@dataclass(frozen=True)
class Band:
    """A figure over several spectroscopies.

    Args:
        by_glass: Name of the spectroscopy -> value.
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
    """Return each figure over several glasses: its uncertainty by the cross-sections.

    Args:
        design: An amplifier, a chain or a design; the glass also applies to the seed laser.
        figures: Function from a result to the figures to keep.
        glasses: Spectroscopies of different names; default: the five parametric ones at the
            temperature and lifetime of the design.

    Raises:
        ConvergenceError: A glass has no steady state.
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
    """Return the design in another glass."""
    if not isinstance(design, Design):
        return replace(design, spectroscopy=glass)
    laser = design.seed_laser
    if laser is not None:
        laser = replace(laser, spectroscopy=glass)
    return replace(design, seed_laser=laser, chain=replace(design.chain, spectroscopy=glass))
