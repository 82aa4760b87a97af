"""The steady state: Newton's method for the excitation, on a grid refined to a tolerance."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import (  # type: ignore[import-untyped]
    LinAlgError,
    lu_factor,
    lu_solve,
)

from .propagation import Lines, Propagation
from .quantities import Array

TOLERANCE = 1e-11  # of the largest excitation
PHOTON_BALANCE = 1e-9
_MOST_ITERATIONS = 300
_RELAXATIONS = 8
_FURTHEST = 0.1  # largest change of the excitation in one time step
_SHARES = (1.0, 0.4, 0.16, 0.06)  # of Newton's step
_LONGEST = 1e3  # in units of the lifetime; a longer time step is a Newton step
_ON_THE_WAY = 1e-4  # tolerance while light is still injected
_MOST_TRIES = 40  # iterations after which a guess is given up
_LARGEST_DROP, _LARGEST_RISE = 0.9, 9.0  # relative change of a circulating flux in one step
_DIMMING, _SLOWEST, _FAINTEST = 0.1, 0.95, 1e-12  # reduction of the injected flux, its last share
_FIRST_CELLS = 32
_MOST_CELLS = 2048
_SLOW, _MOST_MOVES = 0.45, 6  # reduction of the error by a refinement that moves the cells
_NEGLIGIBLE = 1e-6  # share of the input below which an output's relative error does not count


class ConvergenceError(RuntimeError):
    """No steady state was found. An unconverged result is never returned."""


@dataclass(frozen=True)
class Solution:
    """A converged steady state.

    Args:
        propagation: The light and the excitation.
        iterations: Number of linear systems solved.
        residual: Largest imbalance of a cell divided by its rate, relative to the largest
            excitation; at most 1e-11.
        photon_balance: Relative error of the photon balance.
    """

    propagation: Propagation
    iterations: int
    residual: float
    photon_balance: float


def solve(
    lines: Lines, widths_m: Array, guess: Array | None = None, circulating: Array | None = None
) -> Solution:
    """Solve ζ x = Σ [a - (a + e) x] F̄(x) for the excitation of every cell.

    The method is Newton's, with the analytic Jacobian of Σ [a - (a + e) x] F̄ - x. If a Newton step
    does not reduce the imbalance, implicit time steps follow the dynamics of the ions towards a
    stable state; they lengthen until they are Newton steps again.

    In an oscillator the circulating fluxes are unknowns too. Without a guess, an injected flux as
    large as all input keeps the gain below threshold; it is reduced to zero in steps.

    Args:
        lines: The K lines.
        widths_m: Lengths of the cells, (M,).
        guess: Initial excitation, (M,); default: a few relaxations from the unpumped fiber.
        circulating: Initial circulating fluxes, (C,), see :class:`Propagation`.

    Raises:
        ConvergenceError: No steady state; the message gives the residual and the photon balance.
    """
    if lines.circulates.any():
        return _solve_oscillator(lines, widths_m, guess, circulating)
    return _checked(*_iterated(_started(lines, widths_m, guess)))


def _solve_oscillator(
    lines: Lines, widths_m: Array, guess: Array | None, circulating: Array | None
) -> Solution:
    if guess is not None:
        if circulating is None:
            below = Propagation(lines, widths_m, guess)
            circulating = below.forward[0, lines.circulates] if below.is_physical else None
        if circulating is not None:
            state = Propagation(lines, widths_m, guess, circulating)
            found = _iterated(state, most_iterations=_MOST_TRIES)
            if _is_solved(*found[:2]):
                return _checked(*found)
    return _checked(*_lit_up(lines, widths_m))


def _lit_up(lines: Lines, widths_m: Array) -> tuple[Propagation, float, int]:
    """Solve with an injected flux and reduce it to zero, each step from the previous solution."""
    entering = (lines.forward_in_per_s + lines.backward_in_per_s).sum() / lines.saturation_per_m_s
    most = max(entering, 1e-3 * widths_m.sum())
    dark = Propagation(lines, widths_m, np.full(widths_m.size, 1e-3))
    at, closed = lines.circulates, 1 - dark.round_trip[lines.circulates]
    share, factor, iterations = 1.0, _DIMMING, 0
    flux = dark.forward[0, at] + most / np.maximum(closed, 1e-3)
    state, error, count = _iterated(
        Propagation(lines, widths_m, dark.excitation, flux), most, _ON_THE_WAY
    )
    while share > 0 and factor < 1:
        iterations += count
        target = share * factor if share > _FAINTEST else 0.0
        tolerance = _ON_THE_WAY if target else TOLERANCE
        trial, error, count = _iterated(state, target * most, tolerance, _MOST_TRIES)
        if _is_solved(trial, error, tolerance):
            state, share, factor = trial, target, max(factor**2, _DIMMING)
        else:
            factor = factor**0.5 if factor < _SLOWEST else 1.0
    return state, _error(state), iterations + count


def _iterated(
    state: Propagation,
    injection: float = 0.0,
    tolerance: float = TOLERANCE,
    most_iterations: int | None = None,
) -> tuple[Propagation, float, int]:
    """Return the last state, its error, and the number of iterations."""
    most_iterations = _MOST_ITERATIONS if most_iterations is None else most_iterations
    error, time_step, iterations = _error(state, injection), np.inf, 0
    while not _is_solved(state, error, tolerance) and iterations < most_iterations:
        iterations += 1
        trial, trial_error = _stepped(state, time_step, error, injection)
        if trial is not None and trial_error < error:
            time_step = time_step * 4 if time_step < _LONGEST else np.inf
        elif np.isinf(time_step):
            time_step = 1 / state.rate().max()  # follow the ions in time from here on
            continue
        elif trial is None or _furthest(state, trial) > _FURTHEST:
            time_step /= 4
            continue
        else:
            time_step *= 2
        state, error = trial, trial_error
    return state, error, iterations


def _is_solved(state: Propagation, error: float, tolerance: float = TOLERANCE) -> bool:
    return bool(error <= tolerance * state.excitation.max())


def _checked(state: Propagation, error: float, iterations: int) -> Solution:
    balance = state.photon_balance()
    if not (_is_solved(state, error) and balance <= PHOTON_BALANCE):
        raise ConvergenceError(
            f"no steady state after {iterations} iterations: residual "
            f"{error / state.excitation.max():.2g} (at most {TOLERANCE:g}), photon balance "
            f"{balance:.2g} (at most {PHOTON_BALANCE:g}), {_strongest(state)}"
        )
    return Solution(state, iterations, float(error / state.excitation.max()), balance)


def _started(lines: Lines, widths_m: Array, guess: Array | None) -> Propagation:
    excitation = np.full(widths_m.size, 1e-3) if guess is None else guess
    state = Propagation(lines, widths_m, excitation)
    if guess is not None and state.is_physical:
        return state
    state = Propagation(lines, widths_m, np.full(widths_m.size, 1e-3))
    for _ in range(_RELAXATIONS):
        toward = state.absorbed() / state.rate()
        trial = Propagation(lines, widths_m, (state.excitation + toward) / 2)
        if not trial.is_physical or _error(trial) > 10 * _error(state):
            break
        state = trial
    return state


def _stepped(
    state: Propagation, time_step: float, error: float, injection: float
) -> tuple[Propagation | None, float]:
    """Return the state after an implicit time step (in units of τ), and its error.

    An infinite time step is a Newton step, which is shortened until the error decreases. The state
    is None if its light would be infinite or above the lasing threshold.
    """
    matrix = -state.jacobian()
    cells = state.excitation.size
    diagonal = np.arange(cells)
    matrix[diagonal, diagonal] += 1 / time_step
    imbalance = state.imbalance()
    if state.circulating is not None:
        imbalance = np.append(imbalance, state.closing_error(injection))
    try:
        factors = lu_factor(matrix, check_finite=False)
        change = lu_solve(factors, imbalance, check_finite=False)
    except (LinAlgError, ValueError):
        return None, np.inf
    if not np.isfinite(change).all():
        return None, np.inf
    x, flux, trial, trial_error = state.excitation, state.circulating, None, np.inf
    for share in _SHARES if np.isinf(time_step) else (1.0,):
        towards = np.clip(x + share * change[:cells], x * 0.01, 1 - (1 - x) * 0.01)
        if flux is not None:
            grown = np.clip(share * change[cells:], -_LARGEST_DROP, _LARGEST_RISE)
            trial = Propagation(state.lines, state.widths_m, towards, flux * (1 + grown))
        else:
            trial = Propagation(state.lines, state.widths_m, towards)
        trial_error = _error(trial, injection) if trial.is_physical else np.inf
        if trial_error < error:
            break
    return (trial, trial_error) if np.isfinite(trial_error) else (None, np.inf)


def _furthest(state: Propagation, trial: Propagation) -> float:
    return float(np.abs(trial.excitation - state.excitation).max())


def _error(state: Propagation, injection: float = 0.0) -> float:
    with np.errstate(invalid="ignore", over="ignore"):
        error = float(np.max(np.abs(state.imbalance()) / state.rate()))
        if state.circulating is not None:
            closing = np.abs(state.closing_error(injection)).max()
            error = float(np.maximum(error, closing * state.excitation.max()))
    return error if np.isfinite(error) else np.inf


def _strongest(state: Propagation) -> str:
    gain = 10 / np.log(10) * state.nepers.sum(0).max()
    return f"largest single-pass gain {gain:.0f} dB"


@dataclass(frozen=True)
class GridSolution:
    """A steady state with an estimate of its discretisation error.

    Args:
        solution: The steady state on the finest grid.
        edges_m: Edges of its cells, (M + 1,).
        grid_error: Largest estimated relative error of an output, from the next coarser grid.
    """

    solution: Solution
    edges_m: Array
    grid_error: float


def solve_on_adapted_grid(
    lines: Lines | Callable[[Array], Lines],
    length_m: float,
    tolerance: float = 1e-4,
    guess: GridSolution | None = None,
) -> GridSolution:
    """Solve on refined grids until the estimated error of every output is below ``tolerance``.

    Cells are short where the excitation changes; they are moved again if the error falls slowly.
    Each refinement halves every cell, which divides the error by four; a third of the change
    estimates the remaining error. The outputs are the power of each signal and pump, and the sum of
    the spontaneous emission, at both ends.

    Args:
        lines: The K lines, or a function that returns them for the edges of the cells in m.
        length_m: Length of the fiber in m.
        tolerance: Relative tolerance.
        guess: Solution of a similar fiber, whose grid is used first.

    Raises:
        ConvergenceError: No steady state was found, or more than 2048 cells would be required.
    """

    def solved(edges: Array, excitation: Array | None, before: Solution | None) -> Solution:
        there = lines(edges) if callable(lines) else lines
        circulating = None if before is None else _circulating(before, there)
        return solve(there, np.diff(edges), excitation, circulating)

    if guess is None:
        edges = np.linspace(0, length_m, _FIRST_CELLS + 1)
        coarse = solved(edges, None, None)
        edges, excitation = _adapted(edges, coarse.propagation.excitation)
    else:
        edges = guess.edges_m[::2] * (length_m / guess.edges_m[-1])
        excitation = _pairs(guess.solution.propagation.excitation)
    start = guess.solution if guess is not None else coarse
    coarse = solved(edges, excitation, start)
    before, moved = np.inf, 0
    while True:
        edges, excitation = _halved(edges, coarse.propagation.excitation)
        fine = solved(edges, excitation, coarse)
        error = _largest_change(coarse.propagation, fine.propagation) / 3
        if error <= tolerance:
            return GridSolution(fine, edges, error)
        if error > _SLOW * before and moved < _MOST_MOVES and edges.size > 2 * _FIRST_CELLS:
            # The error falls too slowly: a part of the fiber is still unresolved.
            edges, excitation = _adapted(edges[::2], _pairs(fine.propagation.excitation))
            coarse = solved(edges, excitation, fine)
            before, moved = np.inf, moved + 1
            continue
        before = error
        if 2 * edges.size > _MOST_CELLS:
            raise ConvergenceError(
                f"the grid's error is still {error:.2g} (at most {tolerance:g}) with "
                f"{edges.size - 1} cells"
            )
        coarse = fine


def _circulating(solution: Solution, lines: Lines) -> Array | None:
    flux = solution.propagation.circulating
    return flux if flux is not None and flux.size == lines.circulates.sum() else None


def outputs(propagation: Propagation) -> Array:
    """Return the outputs at both ends: signals, pumps, and the total ASE."""
    spontaneous = propagation.lines.is_spontaneous
    ends = np.stack([propagation.forward[-1], propagation.backward[0]])
    return np.concatenate([ends[:, ~spontaneous].ravel(), ends[:, spontaneous].sum(1)])


def _pairs(excitation: Array) -> Array:
    """Return the means of neighbouring pairs."""
    return excitation.reshape(-1, 2).mean(1)


def _largest_change(coarse: Propagation, fine: Propagation) -> float:
    before, after = outputs(coarse), outputs(fine)
    lines = fine.lines
    entering = (lines.forward_in_per_s + lines.backward_in_per_s).sum() / lines.saturation_per_m_s
    return float(np.max(np.abs(after - before) / (after + _NEGLIGIBLE * entering)))


def _adapted(edges: Array, excitation: Array) -> tuple[Array, Array]:
    """Move the edges of the cells: half of the weight is length, half is change of excitation."""
    middles = (edges[1:] + edges[:-1]) / 2
    change = np.abs(np.gradient(excitation, middles))
    weight = 1 / edges[-1] + change / max((change * np.diff(edges)).sum(), 1e-300)
    smooth = np.convolve(np.pad(weight, 2, mode="edge"), [0.1, 0.2, 0.4, 0.2, 0.1], mode="valid")
    covered = np.concatenate([[0.0], np.cumsum(smooth * np.diff(edges))])
    adapted = np.interp(np.linspace(0, covered[-1], edges.size), covered, edges)
    return adapted, np.interp((adapted[1:] + adapted[:-1]) / 2, middles, excitation)


def _halved(edges: Array, excitation: Array) -> tuple[Array, Array]:
    middles = (edges[1:] + edges[:-1]) / 2
    halved = np.sort(np.concatenate([edges, middles]))
    return halved, np.interp((halved[1:] + halved[:-1]) / 2, middles, excitation)
