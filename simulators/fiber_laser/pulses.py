"""Repetitively pulsed amplifiers: energy per pulse, pulse shape and stored energy.

A pulse is so short that pumping and decay during it do not count. It then changes the excitation as
Frantz and Nodvik describe (J. Appl. Phys. 34, 2346 (1963)): with the photons F per pulse divided by
ζ τ, a cell that starts with the gain y = [(a + e) x - a] h and has no loss passes on
F_out = ln[1 + (e^{(a+e) F_in} - 1) e^y] / (a + e), and its excitation falls by the gained photons.
Between pulses the pump acts as in a steady state of the instantaneous excitation.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.integrate import solve_ivp  # type: ignore[import-untyped]

from .amplifier import Amplifier
from .amplifier_result import AmplifierResult
from .propagation import Propagation
from .quantities import Array, require_choice, require_positive
from .steady_state import ConvergenceError

_SAMPLES = 401
_TOLERANCE = 1e-6
_HISTORY = 8
_MOST_PERIODS = 400
_REACH = 3.0  # half width of the sampled time in units of the pulse duration


@dataclass(frozen=True)
class Pulse:
    """A pulse of the first signal, which is zero between pulses.

    Args:
        energy_j: Input energy in J.
        duration_s: Duration (FWHM) in s, below 1 µs: pumping and decay during a pulse are ignored.
        shape: ``gaussian`` or ``square``.
    """

    energy_j: float
    duration_s: float
    shape: str = "gaussian"

    def __post_init__(self) -> None:
        require_positive("energy_j", self.energy_j, "J")
        require_positive("duration_s", self.duration_s, "s", 1e-6)
        require_choice("shape", self.shape, ("gaussian", "square"))

    def power_w(self, time_s: Array) -> Array:
        """Return the input power in W at times in s relative to the centre."""
        if self.shape == "square":
            return np.where(
                np.abs(time_s) <= self.duration_s / 2, self.energy_j / self.duration_s, 0.0
            )
        width = self.duration_s / np.sqrt(8 * np.log(2))
        peak = self.energy_j / (np.sqrt(2 * np.pi) * width)
        return np.asarray(peak * np.exp(-((time_s / width) ** 2) / 2))


@dataclass(frozen=True, eq=False)
class PulsedResult:
    """The periodic state of a pulsed amplifier.

    Args:
        energy_out_j: Output energy per pulse in J.
        gain_db: Energy gain in dB.
        average_out_w: Average output power of the pulses in W.
        peak_out_w: Largest output power in W.
        time_s: Retarded times relative to the centre of the input pulse in s, (n,).
        power_out_w: Output power at these times in W, (n,).
        excitation_before: Fraction of excited ions before a pulse, (M,).
        excitation_after: Fraction of excited ions after a pulse, (M,).
        stored_energy_j: Energy of excited ions before a pulse, in signal photons, in J.
        extracted_energy_j: Energy that a pulse takes from the ions in J.
        lost_energy_j: Energy of the pulse lost by background loss in J.
        periods: Number of periods computed until the state repeated.
    """

    energy_out_j: float
    gain_db: float
    average_out_w: float
    peak_out_w: float
    time_s: Array
    power_out_w: Array
    excitation_before: Array
    excitation_after: Array
    stored_energy_j: float
    extracted_energy_j: float
    lost_energy_j: float
    periods: int


def pulsed(start: AmplifierResult, pulse: Pulse, repetition_hz: float) -> PulsedResult:
    """Compute the periodic state of an amplifier whose first signal is a train of pulses.

    Args:
        start: Steady state of the amplifier without the pulses: the first signal, forward, has
            negligible power. Its grid is used.
        pulse: The input pulse.
        repetition_hz: Repetition rate in Hz; the period is longer than ten pulse durations.

    Raises:
        ValueError: There is no forward signal, or the pulses overlap.
        ConvergenceError: The state does not repeat.
    """
    signals = start.amplifier.signals
    if not signals or signals[0].direction != "forward":
        raise ValueError("signals: pulses require a forward first signal")
    require_positive("repetition_hz", repetition_hz, "Hz", 0.1 / pulse.duration_s)
    dark = replace(start.amplifier, signals=(replace(signals[0], power_w=0.0), *signals[1:]))
    crossing = _Crossing.of(start)
    photons = pulse.energy_j / start.amplifier.photon_energies_j[0]
    fluence = photons / crossing.saturation_photons

    def period(before: Array) -> Array:
        after = crossing.passed(before, fluence)[1]
        return _pumped(dark, start, after, 1 / repetition_hz)

    before, periods = _periodic(period, start.excitation)
    return _result(start, crossing, pulse, before, repetition_hz, periods)


@dataclass(frozen=True, eq=False)
class _Crossing:
    """Passage of a pulse through the cells; fluences are photons divided by ζ τ, in m.

    Each cell has exact gain and, at its edges, half of its loss.
    """

    absorption: Array
    slope: Array
    transmission: Array
    widths_m: Array
    saturation_photons: float

    @classmethod
    def of(cls, start: AmplifierResult) -> "_Crossing":
        lines = start.grid.solution.propagation.lines
        widths = start.grid.solution.propagation.widths_m
        return cls(
            np.broadcast_to(lines.absorption_per_m, (widths.size, lines.count))[:, 0],
            np.broadcast_to(lines.gain_slope_per_m, (widths.size, lines.count))[:, 0],
            np.exp(-lines.loss_per_m[0] * widths / 2),
            widths,
            lines.saturation_per_m_s * start.amplifier.spectroscopy.lifetime_s,
        )

    def passed(self, excitation: Array, fluence: float) -> tuple[float, Array, float]:
        """Return the output fluence, the excitation afterwards, and the lost fluence."""
        after, lost = excitation.copy(), 0.0
        for cell, h in enumerate(self.widths_m):
            arriving = fluence * self.transmission[cell]
            leaving = self._amplified(arriving, cell, excitation[cell])
            after[cell] -= (leaving - arriving) / h
            lost += (fluence - arriving) + leaving * (1 - self.transmission[cell])
            fluence = leaving * self.transmission[cell]
        return fluence, after, lost

    def shape(self, excitation: Array, fluences: Array) -> Array:
        """Return the output fluence up to each time from the input fluence up to it, (n,)."""
        for cell in range(self.widths_m.size):
            arriving = fluences * self.transmission[cell]
            leaving = self._amplified(arriving, cell, excitation[cell])
            fluences = leaving * self.transmission[cell]
        return fluences

    def _amplified(self, fluence: Array | float, cell: int, excitation: float) -> Array | float:
        slope = self.slope[cell]
        gain = (slope * excitation - self.absorption[cell]) * self.widths_m[cell]
        saturated = slope * fluence
        # ln[1 + (e^s - 1) e^y] without overflow: for large s it is s + y + ln[1 - (1 - e^-y) e^-s].
        deep = np.minimum(saturated, 30.0)
        small = np.log1p(np.expm1(deep) * np.exp(gain))
        large = saturated + gain + np.log1p((np.exp(-gain) - 1) * np.exp(-saturated))
        return np.where(saturated < 30.0, small, large)[()] / slope


def _pumped(dark: Amplifier, start: AmplifierResult, excitation: Array, duration_s: float) -> Array:
    """Return the excitation after a time without pulses."""
    widths, lifetime = start.grid.solution.propagation.widths_m, dark.spectroscopy.lifetime_s
    lines = start.lines_of(dark)

    def light(x: Array) -> Propagation:
        return Propagation(lines, widths, np.clip(x, 1e-300, 1.0))

    found = solve_ivp(
        lambda _, x: light(x).imbalance() / lifetime,
        (0.0, duration_s),
        excitation,
        method="BDF",
        jac=lambda _, x: light(x).jacobian() / lifetime,
        rtol=1e-8,
        atol=1e-12,
    )
    if not found.success:
        raise ConvergenceError(f"pumping between pulses ended at {found.t[-1]:g} s")
    return np.asarray(found.y[:, -1])


def _periodic(period: Callable[[Array], Array], start: Array) -> tuple[Array, int]:
    """Return the excitation that a period reproduces, by Anderson acceleration."""
    state = start
    states: list[Array] = []
    changes: list[Array] = []
    for count in range(1, _MOST_PERIODS + 1):
        change = period(state) - state
        if np.abs(change).max() < _TOLERANCE * np.abs(state).max() * 1e-2:
            return state, count
        states, changes = [*states[-_HISTORY:], state], [*changes[-_HISTORY:], change]
        step = state + change
        if len(states) > 1:
            differences = np.diff(np.array(changes), axis=0).T
            weights = np.linalg.lstsq(differences, change, rcond=1e-10)[0]
            step = step - (np.diff(np.array(states), axis=0).T + differences) @ weights
        state = np.clip(step, state * 0.2, 1 - (1 - state) * 0.2)
    raise ConvergenceError(f"the pulsed state did not repeat after {_MOST_PERIODS} periods")


def _result(
    start: AmplifierResult,
    crossing: _Crossing,
    pulse: Pulse,
    before: Array,
    repetition_hz: float,
    periods: int,
) -> PulsedResult:
    photon_j = float(start.amplifier.photon_energies_j[0])
    per_fluence = photon_j * crossing.saturation_photons
    leaving, after, lost = crossing.passed(before, pulse.energy_j / per_fluence)
    time = np.linspace(-_REACH, _REACH, _SAMPLES) * pulse.duration_s
    entered = np.append(0.0, np.cumsum(np.diff(time) * _middles(pulse.power_w(time))))
    left = crossing.shape(before, entered / per_fluence) * per_fluence
    power = np.gradient(left, time)
    energy = float(leaving * per_fluence)
    return PulsedResult(
        energy_out_j=energy,
        gain_db=float(10 * np.log10(energy / pulse.energy_j)),
        average_out_w=energy * repetition_hz,
        peak_out_w=float(power.max()),
        time_s=time,
        power_out_w=power,
        excitation_before=before,
        excitation_after=after,
        stored_energy_j=float(before @ crossing.widths_m * per_fluence),
        extracted_energy_j=float((before - after) @ crossing.widths_m * per_fluence),
        lost_energy_j=float(lost * per_fluence),
        periods=periods,
    )


def _middles(values: Array) -> Array:
    return (values[1:] + values[:-1]) / 2
