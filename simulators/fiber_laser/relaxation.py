"""Relaxation oscillations of a DBR laser, and what it makes of its pump's noise."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_plugins.simulators.fiber_laser.constants import SPEED_OF_LIGHT
from lightning_plugins.simulators.fiber_laser.dbr_laser import DbrLaser
from lightning_plugins.simulators.fiber_laser.propagation import Propagation
from lightning_plugins.simulators.fiber_laser.spectroscopy import Array

_RELATIVE_STEP = 1e-6


@dataclass(frozen=True)
class Relaxation:
    """How a laser settles after a small disturbance, as exp(-damping t) cos(2π frequency t).

    Args:
        frequency_hz: of the oscillation; 0 where it settles without one.
        damping_per_s: its decay rate.
    """

    frequency_hz: float
    damping_per_s: float


def relaxation(laser: DbrLaser) -> Relaxation:
    """Frequency and damping from the eigenvalues of ions and light about the steady state.

    τ dx/dt = Σ [a - (a + e) x] F̄ - x for every cell, and T d ln P/dt = ln(round-trip gain), with
    the round-trip time T = 2 n L_eff / c. For one cell and a four-level medium the frequency tends
    to ω² = (r - 1)/(τ τ_c) at r times the threshold.

    Raises:
        ValueError: the laser is below threshold.
    """
    matrix, _ = _linear_response(laser)
    values = np.linalg.eigvals(matrix)
    oscillating = values[values.imag > 0]
    if not oscillating.size:
        return Relaxation(0.0, float(-values.real.max()))
    slowest = oscillating[np.argmax(oscillating.real)]
    return Relaxation(float(slowest.imag / (2 * np.pi)), float(-slowest.real))


def pump_noise_transfer(laser: DbrLaser, frequency_hz: ArrayLike) -> NDArray[np.complex128]:
    """Relative modulation of the output by that of the pump, (n,), complex.

    Flat below the relaxation oscillation, peaked at it, falling as 1/f² above.
    """
    matrix, driven = _linear_response(laser)
    identity = np.eye(len(matrix))
    return np.array(
        [
            np.linalg.solve(2j * np.pi * frequency * identity - matrix, driven)[-1]
            for frequency in np.asarray(frequency_hz, dtype=float)
        ]
    )


def round_trip_s(laser: DbrLaser) -> float:
    """2 n L_eff / c in s."""
    length_m = laser.cavity.effective_length_mm * 1e-3
    return 2 * laser.cavity.front.refractive_index * length_m / SPEED_OF_LIGHT


def _linear_response(laser: DbrLaser) -> tuple[Array, Array]:
    """Matrix of d/dt (δx of the cells, δ ln P), and what a relative change of the pump drives."""
    state = laser.steady_light()
    lifetime, period = laser.spectroscopy.lifetime_s, round_trip_s(laser)
    cells = state.excitation.size
    matrix = np.zeros((cells + 1, cells + 1))
    matrix[:cells, :cells] = state.jacobian() / lifetime
    matrix[:cells, cells] = _by_relative_input(state, 0) / lifetime
    matrix[cells, :cells] = 2 * state.lines.gain_slope_per_m[0] * state.widths_m / period
    driven = np.zeros(cells + 1)
    driven[:cells] = _by_relative_input(state, 1) / lifetime
    return matrix, driven


def _by_relative_input(state: Propagation, line: int) -> Array:
    """Derivative of the imbalance by ln of a line's inflow, at fixed excitation."""
    changed = []
    for factor in (1 + _RELATIVE_STEP, 1 - _RELATIVE_STEP):
        inflow = state.lines.forward_in_per_s.copy()
        inflow[line] *= factor
        lines = replace(state.lines, forward_in_per_s=inflow)
        changed.append(Propagation(lines, state.widths_m, state.excitation).imbalance())
    return (changed[0] - changed[1]) / (2 * _RELATIVE_STEP)
