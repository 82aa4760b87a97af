"""Pulses: Frantz and Nodvik's limit, energy balance, resolution by transients, repetition."""

import numpy as np
import pytest

from lightning_plugins.simulators.fiber_laser import (
    Amplifier,
    AseBand,
    Fiber,
    Pulse,
    Pump,
    Signal,
    pulsed,
    transient,
)

FIBER = Fiber(1.0, 10, 0.08, 5e25, 125, 0.0, 0.0)
IDLE = Amplifier(FIBER, (Pump(976, 10),), (Signal(1064, 1e-6),), None)
START = IDLE.solve()


def driven(power_w, begin_s, end_s):
    def drive(time):
        signal = Signal(1064, power_w if begin_s <= time <= end_s else 1e-6)
        return Amplifier(FIBER, (Pump(976, 10),), (signal,), None)

    return drive


pytestmark = pytest.mark.filterwarnings(
    "ignore::lightning_plugins.simulators.fiber_laser.PhysicalWarning"
)


def drop(found):
    return float(found.excitation[0].mean() - found.excitation[-1].mean())


@pytest.mark.parametrize(
    ("begin_s", "duration_s", "coarse"),
    [(5.37e-6, 10e-9, 7), (1.23e-6, 2e-9, 3)],
)
def test_a_pulse_between_coarse_times_leaves_the_trace_of_fine_times(begin_s, duration_s, coarse):
    drive = driven(20e-6 / duration_s, begin_s, begin_s + duration_s)
    fine = drop(transient(START, drive, np.linspace(begin_s - 1e-7, 6.0e-6, 101)))
    found = drop(transient(START, drive, np.linspace(0.0, 6.0e-6, coarse)))
    assert fine > 0.05
    assert found == pytest.approx(fine, rel=0.02)


def test_a_gaussian_pulse_between_coarse_times_is_resolved():
    def drive(time):
        power = 2000.0 * np.exp(-(((time - 3.3e-6) / 5e-9) ** 2))
        return Amplifier(FIBER, (Pump(976, 10),), (Signal(1064, power + 1e-6),), None)

    fine = drop(transient(START, drive, np.append(np.linspace(3.25e-6, 3.35e-6, 101), 6e-6)))
    assert drop(transient(START, drive, [0.0, 1e-6, 6e-6])) == pytest.approx(fine, rel=0.02)


def frantz_nodvik(energy_j):
    lines, photon = IDLE.lines(), IDLE.photon_energies_j[0]
    slope = lines.gain_slope_per_m[0]
    saturation_j = photon * lines.saturation_per_m_s * IDLE.spectroscopy.lifetime_s / slope
    widths = np.diff(START.edges_m)
    gain = np.exp((slope * START.excitation - lines.absorption_per_m[0]) @ widths)
    return saturation_j * np.log1p(np.expm1(energy_j / saturation_j) * gain), saturation_j


@pytest.mark.parametrize("energy_j", [1e-9, 1e-6, 20e-6, 200e-6])
def test_a_rare_pulse_has_the_energy_of_frantz_and_nodvik(energy_j):
    expected, _ = frantz_nodvik(energy_j)
    # At 1 Hz the ions return to the steady state of the pump before each pulse.
    found = pulsed(START, Pulse(energy_j, 10e-9), 1.0)
    assert found.energy_out_j == pytest.approx(expected, rel=2e-3)
    assert found.average_out_w == pytest.approx(found.energy_out_j)


def test_a_transient_agrees_with_frantz_and_nodvik():
    drive = driven(2000.0, 1e-8, 2e-8)
    found = transient(START, drive, [0.0, 3e-8])
    expected, saturation_j = frantz_nodvik(20e-6)
    slope = IDLE.lines().gain_slope_per_m[0]
    fallen = (found.excitation[0] - found.excitation[-1]) @ np.diff(START.edges_m)
    assert fallen * slope * saturation_j == pytest.approx(expected - 20e-6, rel=1e-3)


@pytest.mark.parametrize("shape", ["gaussian", "square"])
def test_energy_is_balanced_over_a_pulse(shape):
    lossy = Amplifier(
        Fiber(1.0, 10, 0.08, 5e25, 125, 0.2), (Pump(976, 10),), (Signal(1064, 0.0),), None
    ).solve()
    found = pulsed(lossy, Pulse(5e-6, 5e-9, shape), 20e3)
    gained = found.energy_out_j - 5e-6
    assert gained == pytest.approx(found.extracted_energy_j - found.lost_energy_j, rel=1e-9)
    assert found.lost_energy_j > 0
    assert found.extracted_energy_j < found.stored_energy_j
    assert np.trapezoid(found.power_out_w, found.time_s) == pytest.approx(
        found.energy_out_j, rel=2e-3
    )
    assert found.time_s[np.argmax(found.power_out_w)] < 0, "saturation sharpens the front"


def test_the_average_power_of_fast_repetition_is_that_of_a_continuous_signal():
    band = AseBand(1040, 1090, 5)
    dark = Amplifier(FIBER, (Pump(976, 10),), (Signal(1064, 0.0),), band).solve()
    found = pulsed(dark, Pulse(0.5e-6, 5e-9), 1e6)
    continuous = Amplifier(FIBER, (Pump(976, 10),), (Signal(1064, 0.5),), band).solve()
    assert found.average_out_w == pytest.approx(continuous.signal_out_w, rel=5e-3)
    assert found.periods < 100


def test_slower_repetition_gives_more_energy_and_less_average_power():
    found = [pulsed(START, Pulse(1e-6, 5e-9), hertz) for hertz in (1e3, 1e4, 1e5)]
    energies = [one.energy_out_j for one in found]
    powers = [one.average_out_w for one in found]
    assert energies == sorted(energies, reverse=True)
    assert powers == sorted(powers)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pulse(0.0, 1e-9), "energy_j = 0 J"),
        (lambda: Pulse(1e-6, 1e-3), "duration_s = 0.001 s: .* at most 1e-06 s"),
        (lambda: Pulse(1e-6, 1e-9, "sech"), "shape = 'sech'"),
        (lambda: pulsed(START, Pulse(1e-6, 1e-8), 1e8), "repetition_hz = 1e"),
    ],
)
def test_invalid_pulses_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_pulse_on_a_modulated_pump_is_resolved():
    def drive(time):
        pump = Pump(976, 10 * (1 + 0.5 * np.sin(2e6 * time)))
        signal = Signal(1064, 2000.0 if 3.3e-6 <= time <= 3.31e-6 else 1e-6)
        return Amplifier(FIBER, (pump,), (signal,), None)

    fine = np.append(np.linspace(3.29e-6, 3.32e-6, 61), 6e-6)
    expected = drop(transient(START, drive, fine))
    assert drop(transient(START, drive, [0.0, 1e-6, 6e-6])) == pytest.approx(expected, rel=0.02)
