"""Linewidth from frequency noise, and the self-heterodyne spectrum."""

import numpy as np
import pytest

from lightning_plugins.simulators.fiber_laser import (
    FrequencyNoise,
    flicker_for_linewidth,
    self_heterodyne_spectrum,
)
from lightning_plugins.simulators.fiber_laser.linewidth import (
    amplifier_noise,
    beat_structure,
    full_width_at_half_maximum,
)


def test_white_noise_makes_a_lorentzian_of_pi_h0():
    assert FrequencyNoise(white_hz2_per_hz=100).linewidth_hz(1e-3) == pytest.approx(100 * np.pi)


def test_flicker_linewidth_grows_with_observation_time():
    noise = FrequencyNoise(flicker_hz2=1e6)
    widths = [noise.linewidth_hz(seconds) for seconds in (1e-4, 1e-3, 1e-2)]
    assert widths[0] < widths[1] < widths[2]
    # The area above the separation line, by summation.
    frequency = np.geomspace(1e3, 1e7, 200_001)
    density = noise.density(frequency)
    above = density > 8 * np.log(2) * frequency / np.pi**2
    area = np.trapezoid(np.where(above, density, 0), frequency)
    assert widths[1] == pytest.approx(np.sqrt(8 * np.log(2) * area), rel=1e-3)


@pytest.mark.parametrize("hertz", [3250.0, 10300.0])
def test_calibration_meets_the_measured_linewidth(hertz):
    noise = flicker_for_linewidth(hertz, 1e-3, white_hz2_per_hz=10)
    assert noise.linewidth_hz(1e-3) == pytest.approx(hertz, rel=1e-9)
    with pytest.raises(ValueError, match="white noise of 1e\\+06 Hz²/Hz alone gives"):
        flicker_for_linewidth(hertz, 1e-3, white_hz2_per_hz=1e6)


@pytest.mark.parametrize("seconds", [1e-5, 1e-4, 1e-2])
def test_calibration_holds_for_any_observation_time(seconds):
    noise = flicker_for_linewidth(3250.0, seconds)
    assert noise.linewidth_hz(seconds) == pytest.approx(3250.0, rel=1e-6)


def test_a_long_delay_shows_twice_the_lorentzian_width():
    frequency = np.linspace(-4e4, 4e4, 2001)
    noise = FrequencyNoise(white_hz2_per_hz=1000)
    spectrum = self_heterodyne_spectrum(noise, 10e-3, frequency, 1.0)
    width = full_width_at_half_maximum(frequency, spectrum)
    assert width == pytest.approx(2 * np.pi * 1000, rel=0.01)


def test_a_short_delay_shows_a_coherent_peak_of_the_known_share():
    # The beat keeps the share exp(-2π² h0 τ) in its carrier.
    frequency = np.linspace(-4e5, 4e5, 4001)
    noise, delay = FrequencyNoise(white_hz2_per_hz=1000), 20e-6
    spectrum = self_heterodyne_spectrum(noise, delay, frequency, 1.0)
    step = frequency[1] - frequency[0]
    pedestal = np.median(spectrum[np.abs(frequency) < 4e3])
    peak = (spectrum[np.abs(frequency) < 2e3] - pedestal).sum() * step
    assert peak == pytest.approx(np.exp(-2 * np.pi**2 * 1000 * delay), rel=0.02)


def test_the_spectrum_is_a_distribution():
    frequency = np.linspace(-1e6, 1e6, 8001)
    for noise in (FrequencyNoise(1000), FrequencyNoise(10, 1e6)):
        spectrum = self_heterodyne_spectrum(noise, 1e-4, frequency, 1e-3)
        assert spectrum.sum() * (frequency[1] - frequency[0]) == pytest.approx(1, rel=0.01)


def test_the_structure_of_the_beat_is_that_of_simulated_phases():
    rng = np.random.default_rng(0)
    h0, step, count = 500.0, 1e-6, 2**20
    phase = np.cumsum(rng.normal(0, np.sqrt(2 * np.pi**2 * h0 * step), count))
    delay = 64
    beat = phase[delay:] - phase[:-delay]
    for lag in (16, 64, 200):
        simulated = np.mean((beat[lag:] - beat[:-lag]) ** 2)
        expected = beat_structure(FrequencyNoise(h0), delay * step, np.array([lag * step]), 1.0)
        assert simulated == pytest.approx(float(expected[0]), rel=0.03)


def test_amplifier_noise_is_far_below_the_separation_line():
    phase_noise = float(amplifier_noise(1018, 0.010, 1e4, 1.0))
    assert phase_noise == pytest.approx(2e-17, rel=0.05)
    at = 1e4
    assert at**2 * phase_noise < 1e-9 * 8 * np.log(2) * at / np.pi**2
