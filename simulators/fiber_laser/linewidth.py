"""Frequency noise, the linewidth it causes, and a delayed self-heterodyne measurement of it."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq  # type: ignore[import-untyped]

from .quantities import PLANCK, SPEED_OF_LIGHT, Array, require_positive, require_within

_BETA = 8 * np.log(2) / np.pi**2
_HIGHEST_HZ = 1e9
_VOIGT = 0.5346  # Olivero and Longbothum, J. Quant. Spectrosc. Radiat. Transf. 17, 233 (1977)
_SAMPLES = 2**16
_TIMES = 1200


@dataclass(frozen=True)
class FrequencyNoise:
    """One-sided power spectral density of a laser's frequency, S(f) = h0 + h1/f + h2/f², in Hz²/Hz.

    Args:
        white_hz2_per_hz: White noise h0 in Hz²/Hz; alone it gives a Lorentzian of FWHM π h0.
        flicker_hz2: Flicker noise h1 in Hz²; most thermal and technical noise has this form.
        walk_hz3: Random-walk noise h2 in Hz³.
    """

    white_hz2_per_hz: float = 0.0
    flicker_hz2: float = 0.0
    walk_hz3: float = 0.0

    def __post_init__(self) -> None:
        require_within("white_hz2_per_hz", self.white_hz2_per_hz, "Hz²/Hz", 0.0)
        require_within("flicker_hz2", self.flicker_hz2, "Hz²", 0.0)
        require_within("walk_hz3", self.walk_hz3, "Hz³", 0.0)

    def __add__(self, other: "FrequencyNoise") -> "FrequencyNoise":
        """Return the noise of two independent sources."""
        return FrequencyNoise(
            self.white_hz2_per_hz + other.white_hz2_per_hz,
            self.flicker_hz2 + other.flicker_hz2,
            self.walk_hz3 + other.walk_hz3,
        )

    def density(self, frequency_hz: Array) -> Array:
        """Return S(f) in Hz²/Hz."""
        return (
            self.white_hz2_per_hz
            + self.flicker_hz2 / frequency_hz
            + self.walk_hz3 / frequency_hz**2
        )

    def linewidth_hz(self, observation_s: float) -> float:
        """Return the linewidth (FWHM) in Hz of a measurement that takes ``observation_s``.

        Slow noise contributes where S exceeds the β-separation line 8 ln2 f/π². With its integral A
        from 1/T the width is √(8 ln2 A) (Di Domenico et al., Appl. Opt. 49, 4801 (2010)). The width
        π h0 of white noise is added as for a Voigt profile.
        """
        require_positive("observation_s", observation_s, "s")
        slow = np.sqrt(8 * np.log(2) * self._slow_area(1 / observation_s))
        white = np.pi * self.white_hz2_per_hz
        return float(_VOIGT * white + np.sqrt(((1 - _VOIGT) * white) ** 2 + slow**2))

    def _slow_area(self, lowest_hz: float) -> float:
        """Return ∫ (h1/f + h2/f²) df from ``lowest_hz`` to the β-separation line."""
        flicker, walk = self.flicker_hz2, self.walk_hz3

        def above(log_f: float) -> float:
            frequency = np.exp(log_f)
            return float(flicker / frequency + walk / frequency**2 - _BETA * frequency)

        if above(np.log(lowest_hz)) <= 0:
            return 0.0
        crossing = np.exp(brentq(above, np.log(lowest_hz), np.log(_HIGHEST_HZ)))
        return float(flicker * np.log(crossing / lowest_hz) + walk * (1 / lowest_hz - 1 / crossing))


def flicker_for_linewidth(
    linewidth_hz: float, observation_s: float, white_hz2_per_hz: float = 0.0
) -> FrequencyNoise:
    """Return the noise with white part h0 and an h1 that gives the measured linewidth.

    This is a calibration, not a prediction.

    Raises:
        ValueError: White noise alone gives a larger linewidth.
    """
    require_positive("linewidth_hz", linewidth_hz, "Hz")
    if np.pi * white_hz2_per_hz >= linewidth_hz:
        raise ValueError(
            f"linewidth_hz = {linewidth_hz:g} Hz: white noise of {white_hz2_per_hz:g} Hz²/Hz alone "
            f"gives {np.pi * white_hz2_per_hz:g} Hz"
        )

    def excess(log_flicker: float) -> float:
        noise = FrequencyNoise(white_hz2_per_hz, float(np.exp(log_flicker)))
        return noise.linewidth_hz(observation_s) - linewidth_hz

    # A short observation excludes slow noise, so h1 has to be larger.
    highest = 1e2 * max(linewidth_hz**2, 1 / observation_s**2)
    found = brentq(excess, np.log(1e-12), np.log(highest), xtol=1e-13)
    return FrequencyNoise(white_hz2_per_hz, float(np.exp(found)))


def amplifier_noise(
    wavelength_nm: float, input_w: float, gain: float, inversion_factor: float
) -> Array:
    """Return the one-sided phase noise by an amplifier's spontaneous emission in rad²/Hz.

    S = hν n_sp (G - 1) / (G P_in) (Yamamoto and Mukai, Opt. Quantum Electron. 21, S1 (1989)). The
    frequency noise f² S is far below the β-separation line for any useful input power, so the
    spontaneous emission of an amplifier does not broaden the line.
    """
    require_positive("input_w", input_w, "W")
    photon = PLANCK * SPEED_OF_LIGHT * 1e9 / wavelength_nm
    return np.asarray(photon * inversion_factor * (gain - 1) / (gain * input_w))


def self_heterodyne_spectrum(
    noise: FrequencyNoise, delay_s: float, frequency_hz: Array, observation_s: float
) -> Array:
    """Return the two-sided beat spectrum about its carrier in 1/Hz, of area 1, (n,).

    The beat of the light with its delayed copy has the phase ψ(t) = φ(t) - φ(t - τ). The spectrum
    is the Fourier transform of exp(-D(t)/2) with the structure function D of ψ
    (:func:`beat_structure`). For delays beyond the coherence time it is the autoconvolution of the
    line, twice as wide for white noise. For shorter delays it is a peak on a pedestal; the width of
    the peak is the frequency resolution.

    Args:
        noise: Frequency noise of the laser.
        delay_s: Delay τ in s.
        frequency_hz: Evenly spaced offsets from the carrier in Hz, (n,).
        observation_s: Observation time T in s; noise slower than 1/T is excluded.
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
    # Averaged over the frequency spacing, so that a narrower peak keeps its area.
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
    """Return the mean square change of ψ(t) = φ(t) - φ(t - τ) over ``time_s``, in rad².

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
    """Return the full width at half maximum in Hz, by linear interpolation."""
    half, peak = spectrum.max() / 2, int(spectrum.argmax())
    below_left = np.flatnonzero(spectrum[:peak] < half)
    below_right = np.flatnonzero(spectrum[peak:] < half)
    if not below_left.size or not below_right.size:
        raise ValueError(
            "frequency_hz: the spectrum does not fall to half of its maximum in this range"
        )
    left, right = below_left[-1], peak + below_right[0]
    ends = []
    for inner, outer in ((left + 1, left), (right - 1, right)):
        share = (spectrum[inner] - half) / (spectrum[inner] - spectrum[outer])
        ends.append(frequency_hz[inner] + share * (frequency_hz[outer] - frequency_hz[inner]))
    return float(ends[1] - ends[0])
