"""Amplifiers in time: transients, and how noise of pump and signal passes through.

Light crosses a fiber in nanoseconds and ions answer in microseconds, so that the light is at every
moment the steady light of the momentary excitation: τ dx/dt = Σ [a - (a + e) x] F̄(x) - x.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp  # type: ignore[import-untyped]

from lightning_plugins.simulators.fiber_laser.adjoint import pulled_back
from lightning_plugins.simulators.fiber_laser.amplifier import Amplifier
from lightning_plugins.simulators.fiber_laser.amplifier_result import AmplifierResult
from lightning_plugins.simulators.fiber_laser.light import Pump, Signal
from lightning_plugins.simulators.fiber_laser.paths import value_at, with_value
from lightning_plugins.simulators.fiber_laser.propagation import Propagation
from lightning_plugins.simulators.fiber_laser.spectroscopy import Array
from lightning_plugins.simulators.fiber_laser.steady_state import ConvergenceError

_RELATIVE_STEP = 1e-6


@dataclass(frozen=True, eq=False)
class Transient:
    """An amplifier in time.

    Args:
        time_s: in s, (n,).
        signals_out_w: power of each signal where it leaves, in W, (n, signals).
        pumps_left_w: power of each pump at its far end, in W, (n, pumps).
        excitation: share of excited ions, (n, M).
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
    """Relative modulation of the first signal's output by that of an input power, (n,), complex.

    The linear response of the ions about the steady state, (iωτ - J) δx = ∂R/∂p δp; a noise of the
    pump passes below the corner (1/2πτ)(1 + Σ(a + e)F̄), that of the signal above it. The square of
    the modulus is the transfer of relative intensity noise (RIN).

    Args:
        result: the steady state.
        source: an input power: ``pumps[0].power_w`` or ``signals[0].power_w``.
        frequency_hz: in Hz.
    """
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


def _leaving_w(amplifier: Amplifier, light: Propagation) -> list[float]:
    """Powers of signals and pumps where they leave, in W."""
    lines = light.lines
    scale = amplifier.photon_energies_j * lines.saturation_per_m_s
    forward = light.forward[-1] * (1 - lines.reflectivity_at_end) * scale
    backward = light.backward[0] * (1 - lines.reflectivity_at_start) * scale
    lights: list[Signal | Pump] = [*amplifier.signals, *amplifier.pumps]
    return [
        float((forward if one.direction == "forward" else backward)[place])
        for place, one in enumerate(lights)
    ]
