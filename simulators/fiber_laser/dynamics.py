"""Time-dependent amplifiers and lasers: transients, noise transfer, relaxation oscillations.

Light crosses a fiber in nanoseconds and ions respond in microseconds. The light is therefore the
steady light of the instantaneous excitation: τ dx/dt = Σ [a - (a + e) x] F̄(x) - x. Temperatures
stay those of the steady state, because glass responds in milliseconds to seconds.
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
_SAMPLES = 40_001
_NOTED_CHANGE = 1e-5  # relative change of an input between two samples that divides the time
_ABOVE_USUAL = 10.0  # the same in units of the median change, for inputs that vary all the time
_JUMP = 0.1  # relative change within one sample that counts as a jump
_STEPS_OF_A_CHANGE = 16
_BISECTIONS = 40


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
    """Compute the response of an amplifier in a steady state to changing inputs.

    The integrator is implicit with the analytic Jacobian, on the grid of the start. The input
    powers are sampled at 40,000 times. Where they change between two samples, the time of the
    change is found by bisection; the integration is divided there, and its steps are short while a
    pulse lasts. A pulse shorter than 1/40,000 of the whole time can be missed; :func:`pulsed`
    has pulses of any duration.

    For a forward pulse, time is the retarded time t - n z / c, so the solution also holds for
    pulses shorter than the transit through the fiber.

    Args:
        start: Steady state at the first time.
        drive: Function from a time in s to the amplifier with its inputs at that time; only powers
            may differ from the start.
        time_s: Increasing times in s of the results.
        tolerance: Relative tolerance of a step.

    Raises:
        ConvergenceError: The integrator failed.
    """
    _require_no_oscillation(start)
    times = np.asarray(time_s, dtype=float)
    if times.ndim != 1 or times.size < 2 or (np.diff(times) <= 0).any():
        raise ValueError("time_s: expected at least two increasing times in s")
    excitation, kept = start.excitation, [start.excitation]
    for segment in _segments(drive, times):
        excitation, inner = _integrated(start, drive, excitation, segment, times, tolerance)
        kept += inner
    widths = start.grid.solution.propagation.widths_m
    leaving = [
        _leaving_w(
            drive(at), Propagation(start.lines_of(drive(at)), widths, np.clip(x, 1e-300, 1.0))
        )
        for at, x in zip(times, kept, strict=True)
    ]
    signals = len(start.amplifier.signals)
    powers = np.array(leaving)
    return Transient(times, powers[:, :signals], powers[:, signals:], np.array(kept))


@dataclass(frozen=True)
class _Segment:
    """A part of the time without a jump of the inputs, and the longest step in it."""

    start_s: float
    end_s: float
    longest_step_s: float


def _segments(drive: Callable[[float], Amplifier], times: Array) -> list[_Segment]:
    """Divide the time where input powers jump or change within a few samples."""
    samples = np.union1d(np.linspace(times[0], times[-1], _SAMPLES), times)
    powers = np.array([_input_powers_w(drive(at)) for at in samples])
    scale = np.maximum(np.abs(powers).max(0), 1e-300)
    change = (np.abs(np.diff(powers, axis=0)) / scale).max(1)
    longest = float(np.diff(times).max())
    noted = max(_NOTED_CHANGE, _ABOVE_USUAL * float(np.median(change)))
    groups = _groups(np.flatnonzero(change > noted))
    edges, steps = [float(times[0])], []
    for first, last in groups:
        low, high = float(samples[first]), float(samples[last + 1])
        if first == last and change[first] > _JUMP:
            low = high = _jump_s(drive, low, high)
        if low > edges[-1]:
            edges.append(low)
            steps.append(longest)
        if high > edges[-1]:
            edges.append(high)
            steps.append(min(longest, (high - low) / _STEPS_OF_A_CHANGE))
    if times[-1] > edges[-1]:
        edges.append(float(times[-1]))
        steps.append(longest)
    return [
        _Segment(low, high, step)
        for low, high, step in zip(edges[:-1], edges[1:], steps, strict=True)
    ]


def _groups(places: NDArray[np.int_]) -> list[tuple[int, int]]:
    """Return first and last of each run of neighbouring places; single jumps stay single."""
    if not places.size:
        return []
    parts = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
    return [(int(part[0]), int(part[-1])) for part in parts]


def _jump_s(drive: Callable[[float], Amplifier], low: float, high: float) -> float:
    """Return the time of a jump of the input powers between two times, by bisection."""
    before = _input_powers_w(drive(low))
    after = _input_powers_w(drive(high))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        powers = _input_powers_w(drive(middle))
        if np.abs(powers - before).sum() < np.abs(powers - after).sum():
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _integrated(
    start: AmplifierResult,
    drive: Callable[[float], Amplifier],
    excitation: Array,
    segment: _Segment,
    times: Array,
    tolerance: float,
) -> tuple[Array, list[Array]]:
    """Return the excitation at the end of a segment and at the times within it."""
    widths = start.grid.solution.propagation.widths_m
    lifetime = start.amplifier.spectroscopy.lifetime_s
    # Inputs at a jump belong to the inside of the segment.
    inset = 1e-9 * (segment.end_s - segment.start_s)

    def light(time: float, x: Array) -> Propagation:
        at = min(max(time, segment.start_s + inset), segment.end_s - inset)
        return Propagation(start.lines_of(drive(at)), widths, np.clip(x, 1e-300, 1.0))

    inside = times[(times > segment.start_s) & (times <= segment.end_s)]
    wanted = np.append(inside, segment.end_s) if segment.end_s not in inside else inside
    found = solve_ivp(
        lambda time, x: light(time, x).imbalance() / lifetime,
        (segment.start_s, segment.end_s),
        excitation,
        method="BDF",
        t_eval=wanted,
        jac=lambda time, x: light(time, x).jacobian() / lifetime,
        rtol=tolerance,
        atol=1e-12,
        max_step=segment.longest_step_s,
    )
    if not found.success:
        raise ConvergenceError(f"the transient ended at {found.t[-1]:g} s: {found.message}")
    states = list(found.y.T)
    return states[-1], states[: inside.size]


def _input_powers_w(amplifier: Amplifier) -> Array:
    signals = [signal.power_w for signal in amplifier.signals]
    return np.array(signals + [pump.power_w for pump in amplifier.pumps])


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
            result.lines_of(with_value(amplifier, source, power * factor)),
            state.widths_m,
            state.excitation,
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
