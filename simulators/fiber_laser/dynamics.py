"""Time-dependent amplifiers and lasers: transients, noise transfer, relaxation oscillations.

Light crosses a fiber in nanoseconds and ions respond in microseconds. The light is therefore the
steady light of the instantaneous excitation: τ dx/dt = Σ [a - (a + e) x] F̄(x) - x.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp  # type: ignore[import-untyped]

from .amplifier import Amplifier
from .amplifier_result import AmplifierResult
from .dbr_laser import DbrLaser
from .gradients import pulled_back
from .light import Pump, Signal
from .parameter_paths import value_at, with_value
from .propagation import Propagation
from .quantities import SPEED_OF_LIGHT, Array
from .steady_state import ConvergenceError

_RELATIVE_STEP = 1e-6


@dataclass(frozen=True, eq=False)
class Transient:
    """The response of an amplifier over time.

    Args:
        time_s: Times in s, (n,).
        signals_out_w: Output power of each signal in W, (n, signals).
        pumps_left_w: Residual power of each pump in W, (n, pumps).
        excitation: Fraction of excited ions, (n, M).
    """

    time_s: Array
    signals_out_w: Array
    pumps_left_w: Array
    excitation: Array


def transient(
    start: AmplifierResult,
    drive: Callable[[float], Amplifier],
    time_s: ArrayLike,
    tolerance: float = 1e-7,
) -> Transient:
    """Follow an amplifier from a steady state while its inputs change.

    An implicit integrator with the analytic Jacobian, on the grid of the start.

    Args:
        start: steady state at the first time.
        drive: the amplifier with its inputs at a time in s; only powers may differ from the start.
        time_s: rising times in s at which the state is wanted.
        tolerance: relative error of a step.

    Raises:
        ConvergenceError: the integrator failed.
    """
    _require_no_oscillation(start)
    times = np.asarray(time_s, dtype=float)
    if times.ndim != 1 or times.size < 2 or (np.diff(times) <= 0).any():
        raise ValueError("time_s: expected at least two rising times in s")
    widths = start.grid.solution.propagation.widths_m
    lifetime = start.amplifier.spectroscopy.lifetime_s

    def light(time: float, excitation: Array) -> Propagation:
        return Propagation(drive(time).lines(), widths, np.clip(excitation, 1e-300, 1.0))

    found = solve_ivp(
        lambda time, x: light(time, x).imbalance() / lifetime,
        (times[0], times[-1]),
        start.excitation,
        method="BDF",
        t_eval=times,
        jac=lambda time, x: light(time, x).jacobian() / lifetime,
        rtol=tolerance,
        atol=1e-12,
        # A change that comes and goes between two steps would be missed.
        max_step=float(np.diff(times).max()),
    )
    if not found.success:
        raise ConvergenceError(f"the transient ended at {found.t[-1]:g} s: {found.message}")
    leaving = [_leaving_w(drive(at), light(at, x)) for at, x in zip(times, found.y.T, strict=True)]
    signals = len(start.amplifier.signals)
    powers = np.array(leaving)
    return Transient(times, powers[:, :signals], powers[:, signals:], found.y.T)


def noise_transfer(
    result: AmplifierResult, source: str, frequency_hz: ArrayLike
) -> NDArray[np.complex128]:
    """Return the complex transfer of relative power modulation to the first signal's output, (n,).

    The linear response of the ions is (iωτ - J) δx = ∂R/∂p δp. Pump noise passes below the corner
    (1/2πτ)(1 + Σ(a + e)F̄), signal noise above it. The squared modulus is the transfer of relative
    intensity noise (RIN).

    Args:
        result: The steady state.
        source: Path of an input power: ``pumps[0].power_w`` or ``signals[0].power_w``.
        frequency_hz: Modulation frequencies in Hz, (n,).
    """
    _require_no_oscillation(result)
    amplifier, state = result.amplifier, result.grid.solution.propagation
    power = float(value_at(amplifier, source))
    if not source.endswith("power_w") or power <= 0:
        raise ValueError(f"source = {source!r}: expected the path of a power above 0 W")
    step = _RELATIVE_STEP
    above, below = (
        Propagation(
            with_value(amplifier, source, power * factor).lines(), state.widths_m, state.excitation
        )
        for factor in (1 + step, 1 - step)
    )
    driven = (above.imbalance() - below.imbalance()) / (2 * step)
    out, signals = result.signal_out_w, amplifier.signals
    direct = (_leaving_w(amplifier, above)[0] - _leaving_w(amplifier, below)[0]) / (2 * step * out)
    none = np.zeros(state.lines.count)
    seen = none.copy()
    forward = signals[0].direction == "forward"
    seen[0] = 1 / (state.forward[-1, 0] if forward else state.backward[0, 0])
    ends = (seen, none) if forward else (none, seen)
    read, _ = pulled_back(state, *ends, np.zeros(state.excitation.size))
    jacobian, lifetime = state.jacobian(), amplifier.spectroscopy.lifetime_s
    identity = np.eye(len(jacobian))
    return np.array(
        [
            read @ np.linalg.solve(2j * np.pi * frequency * lifetime * identity - jacobian, driven)
            + direct
            for frequency in np.asarray(frequency_hz, dtype=float)
        ]
    )


def _require_no_oscillation(result: AmplifierResult) -> None:
    if result.grid.solution.propagation.circulating is not None:
        raise ValueError(
            "reflectors: light circulates between both ends, and its dynamics are not those of an "
            "amplifier; use DbrLaser with relaxation() or pump_noise_transfer()"
        )


def _leaving_w(amplifier: Amplifier, light: Propagation) -> list[float]:
    """Return the output powers of signals and pumps in W."""
    lines = light.lines
    scale = amplifier.photon_energies_j * lines.saturation_per_m_s
    forward = light.forward[-1] * (1 - lines.reflectivity_at_end) * scale
    backward = light.backward[0] * (1 - lines.reflectivity_at_start) * scale
    lights: list[Signal | Pump] = [*amplifier.signals, *amplifier.pumps]
    return [
        float((forward if one.direction == "forward" else backward)[place])
        for place, one in enumerate(lights)
    ]


@dataclass(frozen=True)
class Relaxation:
    """The response of a laser to a small disturbance, exp(-damping t) cos(2π frequency t).

    Args:
        frequency_hz: Oscillation frequency in Hz; 0 for an overdamped response.
        damping_per_s: Decay rate in 1/s.
    """

    frequency_hz: float
    damping_per_s: float


def relaxation(laser: DbrLaser) -> Relaxation:
    """Return frequency and damping from the eigenvalues of the linearised laser equations.

    τ dx/dt = Σ [a - (a + e) x] F̄ - x for every cell, and T d ln P/dt = ln(round-trip gain), with
    the round-trip time T = 2 n L_eff / c. For one cell and a four-level medium the frequency tends
    to ω² = (r - 1)/(τ τ_c) at r times the threshold.

    Raises:
        ValueError: The laser is below threshold.
    """
    matrix, _ = _linear_response(laser)
    values = np.linalg.eigvals(matrix)
    oscillating = values[values.imag > 0]
    if not oscillating.size:
        return Relaxation(0.0, float(-values.real.max()))
    slowest = oscillating[np.argmax(oscillating.real)]
    return Relaxation(float(slowest.imag / (2 * np.pi)), float(-slowest.real))


def pump_noise_transfer(laser: DbrLaser, frequency_hz: ArrayLike) -> NDArray[np.complex128]:
    """Return the complex transfer of relative pump modulation to the output, (n,).

    The transfer is flat below the relaxation oscillation, has a peak there and falls as 1/f².
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
    """Return the round-trip time 2 n L_eff / c in s."""
    length_m = laser.cavity.effective_length_mm * 1e-3
    return 2 * laser.cavity.front.refractive_index * length_m / SPEED_OF_LIGHT


def _linear_response(laser: DbrLaser) -> tuple[Array, Array]:
    """Return the matrix of d/dt (δx, δ ln P) and the drive by a relative change of the pump."""
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
    """Return ∂(imbalance)/∂ ln(inflow of a line) at fixed excitation."""
    changed = []
    for factor in (1 + _RELATIVE_STEP, 1 - _RELATIVE_STEP):
        inflow = state.lines.forward_in_per_s.copy()
        inflow[line] *= factor
        lines = replace(state.lines, forward_in_per_s=inflow)
        changed.append(Propagation(lines, state.widths_m, state.excitation).imbalance())
    return (changed[0] - changed[1]) / (2 * _RELATIVE_STEP)
