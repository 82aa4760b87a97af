"""What a delayed self-heterodyne measurement shows of a laser's line."""

import numpy as np

from lightning_plugins.simulators.fiber_laser.checks import require_positive
from lightning_plugins.simulators.fiber_laser.linewidth import FrequencyNoise
from lightning_plugins.simulators.fiber_laser.spectroscopy import Array

_SAMPLES = 2**16
_TIMES = 1200


def self_heterodyne_spectrum(
    noise: FrequencyNoise, delay_s: float, frequency_hz: Array, observation_s: float
) -> Array:
    """Two-sided spectrum of the beat about its carrier in 1/Hz, of area 1, (n,).

    The light beats with itself a delay τ ago, so that the beat has the phase ψ(t) = φ(t) - φ(t - τ)
    and the spectrum is the Fourier transform of exp(-D(t)/2) with the structure function D of ψ
    (:func:`beat_structure`). For delays beyond the coherence time it is the line convolved with
    itself, twice as wide for white noise; for shorter ones a peak on a pedestal, whose width is the
    resolution of the frequencies.

    Args:
        noise: of the laser.
        delay_s: τ.
        frequency_hz: distances from the carrier, evenly spaced, (n,).
        observation_s: slower noise than 1/T is left out.
    """
    require_positive("delay_s", delay_s, "s")
    require_positive("observation_s", observation_s, "s")
    highest = 4 * float(np.abs(frequency_hz).max())
    step = 1 / (2 * highest)
    time = step * np.arange(_SAMPLES)
    few = np.union1d(np.geomspace(step / 2, time[-1], _TIMES), np.linspace(0, 3 * delay_s, 300))
    structure = np.interp(time, few, beat_structure(noise, delay_s, few, observation_s))
    fade = np.cos(np.pi / 2 * np.arange(_SAMPLES) / _SAMPLES) ** 2
    coherence = np.exp(-structure / 2) * fade
    spectrum = step * (2 * np.fft.rfft(coherence).real - coherence[0])
    # Averaged over the frequencies' spacing, so that a peak narrower than it keeps its area.
    fine = np.fft.rfftfreq(_SAMPLES, step)
    area = np.concatenate([[0.0], np.cumsum((spectrum[1:] + spectrum[:-1]) / 2) * fine[1]])
    edges = _edges(np.asarray(frequency_hz, dtype=float))
    return np.diff(np.sign(edges) * np.interp(np.abs(edges), fine, area)) / np.diff(edges)


def _edges(centres: Array) -> Array:
    step = centres[1] - centres[0]
    return np.append(centres - step / 2, centres[-1] + step / 2)


def beat_structure(
    noise: FrequencyNoise, delay_s: float, time_s: Array, observation_s: float
) -> Array:
    """Mean square change of ψ(t) = φ(t) - φ(t - τ) over times in s, in rad², of their shape.

    D(t) = 2 ∫ S(f)/f² · 4 sin²(πfτ) · [1 - cos(2πft)] df over f > 1/T. White noise has the closed
    form D = 4π² h0 min(t, τ).
    """
    frequency = np.geomspace(1 / observation_s, 1e3 / delay_s, 4000)
    slow = FrequencyNoise(0.0, noise.flicker_hz2, noise.walk_hz3)
    of_beat = slow.density(frequency) / frequency**2 * 4 * np.sin(np.pi * frequency * delay_s) ** 2
    white = 4 * np.pi**2 * noise.white_hz2_per_hz * np.minimum(time_s, delay_s)
    if noise.flicker_hz2 == noise.walk_hz3 == 0:
        return white
    slowly = np.empty(len(time_s))
    for start in range(0, len(time_s), 256):  # bounds the memory
        part = slice(start, start + 256)
        changed = 1 - np.cos(2 * np.pi * np.multiply.outer(time_s[part], frequency))
        slowly[part] = np.trapezoid(2 * of_beat * changed, frequency, axis=1)
    return white + slowly


def full_width_at_half_maximum(frequency_hz: Array, spectrum: Array) -> float:
    """Width of the part about the maximum that is above half of it, in Hz, interpolated."""
    half, peak = spectrum.max() / 2, int(spectrum.argmax())
    below_left = np.flatnonzero(spectrum[:peak] < half)
    below_right = np.flatnonzero(spectrum[peak:] < half)
    if not below_left.size or not below_right.size:
        raise ValueError("frequency_hz: the spectrum does not fall to half of its maximum in them")
    left, right = below_left[-1], peak + below_right[0]
    ends = []
    for inner, outer in ((left + 1, left), (right - 1, right)):
        share = (spectrum[inner] - half) / (spectrum[inner] - spectrum[outer])
        ends.append(frequency_hz[inner] + share * (frequency_hz[outer] - frequency_hz[inner]))
    return float(ends[1] - ends[0])
