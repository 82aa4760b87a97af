"""The steady state on a given grid: Newton's method with the excitation as the only unknown."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import (  # type: ignore[import-untyped]
    LinAlgError,
    lu_factor,
    lu_solve,
)

from lightning_plugins.simulators.fiber_laser.lines import Lines
from lightning_plugins.simulators.fiber_laser.propagation import Propagation
from lightning_plugins.simulators.fiber_laser.spectroscopy import Array

TOLERANCE = 1e-11  # of the largest excitation
PHOTON_BALANCE = 1e-9
_MOST_ITERATIONS = 300
_RELAXATIONS = 8
_FURTHEST = 0.1  # change of the excitation that a step in time may make
_SHARES = (1.0, 0.4, 0.16, 0.06)  # of Newton's step
_LONGEST = 1e3  # in units of the lifetime; a longer step in time is Newton's


class ConvergenceError(RuntimeError):
    """No steady state was found; says how far it got. No unconverged result is returned."""


@dataclass(frozen=True)
class Solution:
    """A converged steady state.

    Args:
        propagation: the light and the excitation.
        iterations: linear systems that were solved.
        residual: largest imbalance of a cell over its rate of exchange, as a share of the largest
            excitation; at most 1e-11.
        photon_balance: what is missing in the balance of photons, as a share.
    """

    propagation: Propagation
    iterations: int
    residual: float
    photon_balance: float


def solve(lines: Lines, widths_m: Array, guess: Array | None = None) -> Solution:
    """Solve ζ x = Σ [a - (a + e) x] F̄(x) for the excitation of every cell.

    Newton's method on Σ [a - (a + e) x] F̄ - x with the analytic Jacobian. Where its step does not
    reduce the imbalance, implicit steps in time lead on, which follow the ions' own dynamics to a
    stable state and lengthen until they are Newton's again.

    Args:
        lines: the K lines.
        widths_m: lengths of the cells, (M,).
        guess: excitation to begin with, (M,); default: a few relaxations from the unpumped fiber.

    Raises:
        ConvergenceError: with the residual and the photon balance that were reached.
    """
    state = _started(lines, widths_m, guess)
    error, time_step, iterations = _error(state), np.inf, 0
    while error > TOLERANCE * state.excitation.max() and iterations < _MOST_ITERATIONS:
        iterations += 1
        trial, trial_error = _stepped(state, time_step, error)
        if trial is not None and trial_error < error:
            time_step = time_step * 4 if time_step < _LONGEST else np.inf
        elif np.isinf(time_step):
            time_step = 1 / state.rate().max()  # from here on, follow the ions in time
            continue
        elif trial is None or _furthest(state, trial) > _FURTHEST:
            time_step /= 4
            continue
        else:
            time_step *= 2
        state, error = trial, trial_error
    balance = state.photon_balance()
    error /= state.excitation.max()
    if not (error <= TOLERANCE and balance <= PHOTON_BALANCE):
        raise ConvergenceError(
            f"no steady state after {iterations} iterations: residual {error:.2g} (at most "
            f"{TOLERANCE:g}), photon balance {balance:.2g} (at most {PHOTON_BALANCE:g}), "
            f"{_strongest(state)}"
        )
    return Solution(state, iterations, error, balance)


def _started(lines: Lines, widths_m: Array, guess: Array | None) -> Propagation:
    excitation = np.full(widths_m.size, 1e-3) if guess is None else guess
    state = Propagation(lines, widths_m, excitation)
    if guess is not None and state.is_physical:
        return state
    state = Propagation(lines, widths_m, np.full(widths_m.size, 1e-3))
    for _ in range(_RELAXATIONS):
        toward = state.mean @ lines.absorption_per_m / state.rate()
        trial = Propagation(lines, widths_m, (state.excitation + toward) / 2)
        if not trial.is_physical or _error(trial) > 10 * _error(state):
            break
        state = trial
    return state


def _stepped(
    state: Propagation, time_step: float, error: float
) -> tuple[Propagation | None, float]:
    """The state after an implicit step in time (in units of τ), and its error.

    An infinite step is Newton's, which is shortened until the error falls. The state is None where
    the light in it would be infinite or lasing.
    """
    matrix = -state.jacobian()
    diagonal = np.arange(len(matrix))
    matrix[diagonal, diagonal] += 1 / time_step
    try:
        factors = lu_factor(matrix, check_finite=False)
        change = lu_solve(factors, state.imbalance(), check_finite=False)
    except (LinAlgError, ValueError):
        return None, np.inf
    if not np.isfinite(change).all():
        return None, np.inf
    x, trial, trial_error = state.excitation, None, np.inf
    for share in _SHARES if np.isinf(time_step) else (1.0,):
        towards = np.clip(x + share * change, x * 0.01, 1 - (1 - x) * 0.01)
        trial = Propagation(state.lines, state.widths_m, towards)
        trial_error = _error(trial) if trial.is_physical else np.inf
        if trial_error < error:
            break
    return (trial, trial_error) if np.isfinite(trial_error) else (None, np.inf)


def _furthest(state: Propagation, trial: Propagation) -> float:
    return float(np.abs(trial.excitation - state.excitation).max())


def _error(state: Propagation) -> float:
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.max(np.abs(state.imbalance()) / state.rate()))


def _strongest(state: Propagation) -> str:
    gain = 10 / np.log(10) * state.nepers.sum(0).max()
    return f"largest single-pass gain {gain:.0f} dB"
