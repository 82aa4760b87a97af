"""Time-dependent amplifiers and lasers: transients, noise transfer, relaxation oscillations."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from lightning_plugins.simulators.fiber_laser import (
    Amplifier,
    AseBand,
    Cavity,
    DbrLaser,
    Fiber,
    Grating,
    Pump,
    Signal,
    gradient,
    noise_transfer,
    pump_noise_transfer,
    relaxation,
    transient,
    ytterbium,
)
from lightning_plugins.simulators.fiber_laser.dynamics import round_trip_s
from lightning_plugins.simulators.fiber_laser.parameter_paths import with_value
from lightning_plugins.simulators.fiber_laser.propagation import Propagation

AMPLIFIER = Amplifier(
    Fiber(1.0, 10, 0.08, 8e25, cladding_diameter_um=125),
    (Pump(976, 10.0),),
    (Signal(1018, 0.2),),
    AseBand(1000, 1060, 4),
)
STEADY = AMPLIFIER.solve(1e-2)
TIMES_S = np.append(np.linspace(0, 1e-4, 6), [1e-3, 5e-3])
LASER = DbrLaser(
    Cavity(Grating(1018, 10, 0.995), Grating(1018, 10, 0.8), 8.0, 0.05),
    6,
    0.12,
    2e26,
    pump_power_w=0.05,
    spectroscopy=ytterbium("liekki"),
)


def test_a_constant_input_gives_a_constant_output():
    found = transient(STEADY, lambda time: AMPLIFIER, np.linspace(0, 1e-3, 5))
    assert found.signals_out_w[:, 0] == pytest.approx(np.full(5, STEADY.signal_out_w), rel=1e-6)


def test_after_a_pump_step_the_output_reaches_the_new_steady_state():
    stronger = with_value(AMPLIFIER, "pumps[0].power_w", 15.0)
    found = transient(STEADY, lambda time: stronger, TIMES_S)
    settled = stronger.solve(guess=STEADY)
    assert found.signals_out_w[0, 0] == pytest.approx(STEADY.signal_out_w, rel=1e-6)
    assert found.signals_out_w[-1, 0] == pytest.approx(settled.signal_out_w, rel=1e-5)
    assert (np.diff(found.signals_out_w[:, 0]) > -1e-4).all(), "an amplifier does not ring"


def test_a_signal_step_passes_at_once_and_then_saturates():
    stronger = with_value(AMPLIFIER, "signals[0].power_w", 0.4)
    found = transient(STEADY, lambda time: stronger, TIMES_S)
    gain = STEADY.signal_out_w / 0.2
    assert found.signals_out_w[0, 0] == pytest.approx(0.4 * gain, rel=1e-6)
    assert found.signals_out_w[-1, 0] < 0.75 * found.signals_out_w[0, 0]


@pytest.mark.parametrize("source", ["pumps[0].power_w", "signals[0].power_w"])
def test_slow_noise_transfer_equals_the_static_gradient(source):
    power = {"pumps[0].power_w": 10.0, "signals[0].power_w": 0.2}[source]
    slow = noise_transfer(STEADY, source, [1e-3])[0]
    static = gradient(STEADY, (source,))[source] * power / STEADY.signal_out_w
    assert slow.real == pytest.approx(static, rel=1e-5)
    assert abs(slow.imag) < 1e-5


def test_fast_pump_noise_is_filtered_and_fast_signal_noise_passes():
    pump = np.abs(noise_transfer(STEADY, "pumps[0].power_w", [1e6, 1e7]))
    assert pump[0] / pump[1] == pytest.approx(10, rel=0.05)
    signal = noise_transfer(STEADY, "signals[0].power_w", [1e8])[0]
    assert abs(signal) == pytest.approx(1, rel=1e-3)


def test_noise_transfer_matches_a_simulated_modulation():
    frequency, depth = 3e3, 1e-3

    def drive(time):
        power = 10.0 * (1 + depth * np.sin(2 * np.pi * frequency * time))
        return with_value(AMPLIFIER, "pumps[0].power_w", power)

    times = np.linspace(0, 3 / frequency, 3 * 24 + 1)
    output = transient(STEADY, drive, times, 1e-7).signals_out_w[:, 0]
    last = slice(-24, None)  # a period after the transient
    phase = np.exp(-2j * np.pi * frequency * times[last])
    amplitude = 2j * np.mean((output[last] - output[last].mean()) * phase) / output[last].mean()
    expected = noise_transfer(STEADY, "pumps[0].power_w", [frequency])[0] * depth
    assert amplitude == pytest.approx(expected, rel=0.02)


def test_relaxation_matches_the_simulated_laser_equations():
    state = LASER.steady_light()
    lifetime, period = LASER.spectroscopy.lifetime_s, round_trip_s(LASER)
    slope, widths = state.lines.gain_slope_per_m[0], state.widths_m

    def slopes(_, variables):
        x, log_power = variables[:-1], variables[-1]
        inflow = state.lines.forward_in_per_s * np.array([np.exp(log_power), 1.0])
        light = Propagation(replace(state.lines, forward_in_per_s=inflow), widths, x)
        growth = 2 * (slope * (x - state.excitation) * widths).sum() / period
        return np.append(light.imbalance() / lifetime, growth)

    expected = relaxation(LASER)
    times = np.linspace(0, 3 / expected.frequency_hz, 200)
    start = np.append(state.excitation, 1e-3)
    found = solve_ivp(slopes, (0, times[-1]), start, "RK45", times, rtol=1e-6, atol=1e-10)
    ringing = found.y[-1]
    shape = np.exp(-expected.damping_per_s * times)
    turn = 2 * np.pi * expected.frequency_hz * times
    basis = np.stack([shape * np.cos(turn), shape * np.sin(turn)], 1)
    _, residual, *_ = np.linalg.lstsq(basis, ringing, rcond=None)
    assert residual[0] / (ringing**2).sum() < 1e-3


def test_the_relaxation_frequency_grows_with_the_square_root_of_the_excess_pump():
    threshold = LASER.threshold_pump_w()
    frequencies = [
        relaxation(replace(LASER, pump_power_w=ratio * threshold)).frequency_hz
        for ratio in (2.0, 5.0)
    ]
    assert frequencies[1] / frequencies[0] == pytest.approx(2.0, rel=0.25)
    # The order of magnitude of the four-level formula, with the loss rate of the cavity.
    photon_s = round_trip_s(LASER) / (2 * LASER.mode.loss_nepers)
    four_level = np.sqrt(4.0 / (LASER.spectroscopy.lifetime_s * photon_s)) / (2 * np.pi)
    assert 1 < frequencies[1] / four_level < 4


def test_pump_noise_transfer_is_flat_then_peaks_then_falls_as_frequency_squared():
    ring = relaxation(LASER).frequency_hz
    slow, peak, fast, faster = np.abs(
        pump_noise_transfer(LASER, [1e-3 * ring, ring, 10 * ring, 20 * ring])
    )
    powers = [
        replace(LASER, pump_power_w=0.05 * factor).solve().output_w for factor in (0.999, 1.001)
    ]
    static = (powers[1] - powers[0]) / (2e-3 * LASER.solve().output_w)
    assert slow == pytest.approx(static, rel=1e-3)
    assert peak > 3 * slow
    assert fast / faster == pytest.approx(4, rel=0.05)


def test_invalid_requests_raise():
    with pytest.raises(ValueError, match="at least two increasing times"):
        transient(STEADY, lambda time: AMPLIFIER, [1.0, 0.5])
    with pytest.raises(ValueError, match="expected the path of a power"):
        noise_transfer(STEADY, "fiber.length_m", [1.0])
    with pytest.raises(ValueError, match=r"the laser is below threshold, 0\.00"):
        relaxation(replace(LASER, pump_power_w=1e-4))
