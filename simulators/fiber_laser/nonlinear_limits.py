"""Nonlinear limits of the power: stimulated Brillouin and Raman scattering, four-wave mixing.

Each process has a closed threshold formula. The Stokes waves of Brillouin and Raman scattering are
also integrated along the fiber, with their spontaneous seed and the gain of the ions.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq  # type: ignore[import-untyped]

from .amplifier_result import AmplifierResult
from .propagation import step_functions
from .quantities import (
    BOLTZMANN,
    PLANCK,
    SPEED_OF_LIGHT,
    Array,
    require_positive,
    require_within,
)

SILICA_SOUND_M_PER_S = 5960.0
BRILLOUIN_GAIN_M_PER_W = (2e-11, 5e-11)
"""Peak gain at the natural bandwidth: from fibers that guide sound badly to bulk silica."""
BRILLOUIN_BANDWIDTH_HZ = 50e6
"""Natural width (FWHM) of the gain spectrum at 1 µm."""
RAMAN_GAIN_M = 1e-19
"""Peak gain of silica times the pump wavelength, 1e-13 m/W at 1 µm (Stolen and Ippen, Appl. Phys.
Lett. 22, 276 (1973)), for parallel polarisations."""
RAMAN_SHIFT_HZ = 13.2e12
"""Shift of the peak of silica's Raman gain."""
RAMAN_BANDWIDTH_HZ = 6e12
"""Width (FWHM) of the Lorentzian in place of the irregular main peak of silica: an assumption
without a source. Twice the width lowers the integrated threshold by 5 % with 0.5 m of delivery
fiber and by 8 % with 50 m, because it enters by a logarithm."""
NONLINEAR_INDEX_M2_PER_W = 2.6e-20
REFLECTED_SHARE = 0.01
"""Stokes power at threshold, relative to the signal output, for the integrated waves."""
_PER_WIDTH = 14  # points of the spectrum per width of the gain spectrum
_WIDTHS = 6.0  # of the gain spectrum on either side of its extremes
_ROOM_K = 293.15
_DEEPEST = 200.0  # nepers of a cell beyond which a trial power is far above threshold


@dataclass(frozen=True)
class BrillouinThreshold:
    """Signal power at which stimulated Brillouin scattering (SBS) begins, as a range.

    Args:
        low_w: Threshold in W at the largest Brillouin gain of the range.
        high_w: Threshold in W at the smallest gain.
    """

    low_w: float
    high_w: float


def brillouin_threshold(
    result: AmplifierResult,
    delivery_m: float = 0.0,
    gain_m_per_w: tuple[float, float] = BRILLOUIN_GAIN_M_PER_W,
    threshold_gain: float = 21.0,
    signal_linewidth_hz: float | None = None,
    brillouin_bandwidth_hz: float = BRILLOUIN_BANDWIDTH_HZ,
) -> BrillouinThreshold:
    """Return the SBS threshold of an amplifier and a passive delivery fiber of the same core.

    P = G A / (g L) · (Δν_B + Δν_signal) / Δν_natural with L = ∫P dz / P_out + delivery and G = 21
    (Smith, Appl. Opt. 11, 2489 (1972)). The area under the gain spectrum is constant, so a spectrum
    that heat or the signal broadens has a lower peak. G depends on length and material: 20-23 for
    very short fibers, 10-12 for 100 m (Kovalev and Harrison, Opt. Express 15, 17625 (2007)).

    Args:
        result: The amplifier at its power; the shape of its power along z is kept.
        delivery_m: Length of the delivery fiber in m.
        gain_m_per_w: Smallest and largest peak gain in m/W at the natural bandwidth of 50 MHz.
        threshold_gain: G.
        signal_linewidth_hz: Linewidth of the signal in Hz; None: that of the
            first signal, or the width of the bin of an oscillator's laser line.
        brillouin_bandwidth_hz: Width of the gain spectrum in Hz, with the spread of the shift by
            heat (:func:`brillouin_shift_per_k_hz`).
    """
    require_within("delivery_m", delivery_m, "m", 0.0)
    require_positive("threshold_gain", threshold_gain, "")
    require_positive("brillouin_bandwidth_hz", brillouin_bandwidth_hz, "Hz")
    require_positive("gain_m_per_w", gain_m_per_w[0], "m/W", gain_m_per_w[1])
    linewidth_hz = _linewidth_hz(result, signal_linewidth_hz)
    area = float(result.amplifier.fiber.effective_area_m2(result.main_wavelength_nm))
    length = result.effective_length_m + delivery_m
    broadened = (brillouin_bandwidth_hz + linewidth_hz) / BRILLOUIN_BANDWIDTH_HZ
    low, high = (threshold_gain * area * broadened / (g * length) for g in reversed(gain_m_per_w))
    return BrillouinThreshold(low, high)


def brillouin_shift_hz(wavelength_nm: float, refractive_index: float = 1.45) -> float:
    """Return the Brillouin shift 2 n v / λ in Hz."""
    require_positive("wavelength_nm", wavelength_nm, "nm")
    return 2 * refractive_index * SILICA_SOUND_M_PER_S / (wavelength_nm * 1e-9)


def brillouin_shift_per_k_hz(wavelength_nm: float) -> float:
    """Return the change of the Brillouin shift with temperature in Hz/K.

    1.17-1.33 MHz/K at 1.32 µm ("Thermal effects of Brillouin gain spectra in single-mode fibers",
    IEEE Photon. Technol. Lett. 2, 718 (1990)), scaled as the shift; the mean is used.
    """
    return 1.25e6 * 1320.0 / wavelength_nm


@dataclass(frozen=True, eq=False)
class StokesWave:
    """A Stokes wave in the undepleted field of a signal, by exact steps through M cells.

    A spectral component with detuning δ obeys dS/ds = (g(δ) P/A + γ) S + g(δ) P/A · hν (n + 1) + e
    with the gain spectrum g(δ) = g0 Δν_nat/Δν / (1 + (δ - δ_z)²/(Δν/2)²), a Lorentzian of the
    summed widths of scattering and signal, and s along the direction of the Stokes wave.

    Args:
        widths_m: Lengths of the cells in order of travel of the Stokes wave, (M,).
        power_w: Signal power in the cells in W, (M,).
        area_m2: Effective area in m².
        gain_m_per_w: Peak gain g0 at the natural width in m/W.
        natural_hz: Natural width of the gain spectrum (FWHM) in Hz.
        width_hz: Width Δν of the gain spectrum with the signal's linewidth in Hz.
        detuning_hz: Detuning δ_z of the gain spectrum in the cells in Hz, (M,).
        ion_gain_per_m: Net gain γ by ions and loss in the cells in 1/m, (M,).
        ion_seed_w_per_hz_m: Spontaneous emission e of the ions in W/Hz/m, (M,).
        seed_w_per_hz: hν (n + 1) with n thermal phonons, in W/Hz.
    """

    widths_m: Array
    power_w: Array
    area_m2: float
    gain_m_per_w: float
    natural_hz: float
    width_hz: float
    detuning_hz: Array
    ion_gain_per_m: Array
    ion_seed_w_per_hz_m: Array
    seed_w_per_hz: float

    def output_w(self, scale: float = 1.0) -> float:
        """Return the Stokes power after the last cell in W, with the signal power times a scale."""
        margin = _WIDTHS * self.width_hz
        low, high = self.detuning_hz.min() - margin, self.detuning_hz.max() + margin
        detuning = np.linspace(low, high, int((high - low) / self.width_hz * _PER_WIDTH) + 1)
        offset = (detuning - self.detuning_hz[:, None]) / (self.width_hz / 2)
        peak = self.gain_m_per_w * self.natural_hz / self.width_hz
        gain = scale * (self.power_w / self.area_m2)[:, None] * peak / (1 + offset**2)
        nepers = (gain + self.ion_gain_per_m[:, None]) * self.widths_m[:, None]
        if nepers.sum(0).max() > _DEEPEST:
            return float("inf")
        source = gain * self.seed_w_per_hz + self.ion_seed_w_per_hz_m[:, None]
        grown, phi1, _ = step_functions(nepers)
        added = source * phi1 * self.widths_m[:, None]
        spectrum = np.zeros(detuning.size)
        for cell in range(len(nepers)):
            spectrum = spectrum * grown[cell] + added[cell]
        return float(np.trapezoid(spectrum, detuning))

    def threshold_w(self, output_w: float, share: float = REFLECTED_SHARE) -> float:
        """Return the signal output in W at which the scattered power is a share of it.

        The shape of the signal power along z is kept. Spontaneous emission of the ions alone does
        not count.
        """
        emitted = self.output_w(0.0)

        def excess(log_scale: float) -> float:
            scale = float(np.exp(log_scale))
            scattered = self.output_w(scale) - emitted
            if np.isinf(scattered):
                return 50.0
            return float(np.log(max(scattered, 1e-300) / (share * scale * output_w)))

        return output_w * float(np.exp(brentq(excess, np.log(1e-6), np.log(1e6), xtol=1e-8)))


def brillouin_stokes(
    result: AmplifierResult,
    gain_m_per_w: float,
    delivery_m: float = 0.0,
    heating_k: Array | float = 0.0,
    signal_linewidth_hz: float | None = None,
    delivery_detuning_hz: float = 0.0,
) -> StokesWave:
    """Return the Brillouin Stokes wave, which travels against the signal.

    Args:
        result: The amplifier at its power.
        gain_m_per_w: Peak gain at the natural bandwidth of 50 MHz in m/W.
        delivery_m: Length of a delivery fiber of the same core in m.
        heating_k: Temperature of the core above the delivery fiber in the cells, (M,), which shifts
            the gain spectrum.
        signal_linewidth_hz: Linewidth of the signal in Hz; None: that of the first signal.
        delivery_detuning_hz: Difference of the Brillouin shifts of delivery fiber and cold
            amplifier fiber, for example by another core glass, in Hz.
    """
    wavelength_nm = result.main_wavelength_nm
    shift_hz = brillouin_shift_hz(wavelength_nm, result.amplifier.fiber.refractive_index)
    warming = np.broadcast_to(np.asarray(heating_k, dtype=float), result.excitation.shape)
    wave = _stokes_wave(result, wavelength_nm, shift_hz, delivery_m)
    detuning = np.append(delivery_detuning_hz, _against(result, warming))
    detuning[1:] *= brillouin_shift_per_k_hz(wavelength_nm)
    return replace(
        wave,
        gain_m_per_w=gain_m_per_w,
        natural_hz=BRILLOUIN_BANDWIDTH_HZ,
        width_hz=BRILLOUIN_BANDWIDTH_HZ + _linewidth_hz(result, signal_linewidth_hz),
        detuning_hz=detuning,
    )


def raman_threshold_w(
    result: AmplifierResult, delivery_m: float = 0.0, threshold_gain: float = 16.0
) -> float:
    """Return the threshold of forward stimulated Raman scattering in W.

    P = G A / (g L) with G = 16 and L = ∫P dz / P_out + delivery (Smith, Appl. Opt. 11, 2489
    (1972)), for parallel polarisations.
    """
    require_within("delivery_m", delivery_m, "m", 0.0)
    area = float(result.amplifier.fiber.effective_area_m2(result.main_wavelength_nm))
    gain = RAMAN_GAIN_M / (result.main_wavelength_nm * 1e-9)
    return float(threshold_gain * area / (gain * (result.effective_length_m + delivery_m)))


def raman_stokes(result: AmplifierResult, delivery_m: float = 0.0) -> StokesWave:
    """Return the forward Raman Stokes wave, seeded by spontaneous scattering and by the ions."""
    wave = _stokes_wave(result, result.main_wavelength_nm, RAMAN_SHIFT_HZ, delivery_m)
    flipped = {
        name: getattr(wave, name)[::-1]
        for name in ("widths_m", "power_w", "ion_gain_per_m", "ion_seed_w_per_hz_m")
    }
    return replace(
        wave,
        gain_m_per_w=RAMAN_GAIN_M / (result.main_wavelength_nm * 1e-9),
        natural_hz=RAMAN_BANDWIDTH_HZ,
        width_hz=RAMAN_BANDWIDTH_HZ,
        **flipped,
    )


def nonlinear_phase_rad(result: AmplifierResult, delivery_m: float = 0.0) -> float:
    """Return the nonlinear phase (B integral) 2π n2/λ ∫P/A dz of the main line in rad.

    n2 = 2.6e-20 m²/W (Agrawal, Nonlinear Fiber Optics, ch. 2).
    """
    area = float(result.amplifier.fiber.effective_area_m2(result.main_wavelength_nm))
    length = result.effective_length_m + delivery_m
    wavenumber = 2 * np.pi / (result.main_wavelength_nm * 1e-9)
    return float(NONLINEAR_INDEX_M2_PER_W * wavenumber * result.output_w * length / area)


def four_wave_mixing_share(
    result: AmplifierResult,
    dispersion_s2_per_m: float = 2e-26,
    delivery_m: float = 0.0,
) -> float:
    """Return the power at 2ν1 - ν2 relative to the first of two signals.

    (γ P1 L)² (P2/P1) sin²(ΔL/2)/(ΔL/2)² with the mismatch Δ = β2 Ω² (Hill et al., J. Appl. Phys.
    49, 5098 (1978)), at the output powers of the signals. In the normal dispersion of silica near
    1 µm a single line has no parametric gain, so the process needs two lines.

    Args:
        result: An amplifier with at least two signals.
        dispersion_s2_per_m: β2 in s²/m.
        delivery_m: Length of a delivery fiber of the same core in m.

    Raises:
        ValueError: The amplifier has fewer than two signals.
    """
    signals = result.amplifier.signals
    if len(signals) < 2:
        raise ValueError(f"signals: four-wave mixing requires two signals, got {len(signals)}")
    separation = 2e9 * np.pi * SPEED_OF_LIGHT
    separation *= 1 / signals[0].wavelength_nm - 1 / signals[1].wavelength_nm
    length = result.effective_length_m + delivery_m
    phase = nonlinear_phase_rad(result, delivery_m)
    walk = np.sinc(dispersion_s2_per_m * separation**2 * length / 2 / np.pi) ** 2
    powers = result.signals_out_w
    return float(phase**2 * powers[1] / powers[0] * walk)


def _stokes_wave(
    result: AmplifierResult, wavelength_nm: float, shift_hz: float, delivery_m: float
) -> StokesWave:
    """Return the wave with everything but the scattering: delivery fiber, then the cells."""
    amplifier, fiber = result.amplifier, result.amplifier.fiber
    frequency = SPEED_OF_LIGHT * 1e9 / wavelength_nm - shift_hz
    stokes_nm = SPEED_OF_LIGHT * 1e9 / frequency
    power = (result.main_power_w[1:] + result.main_power_w[:-1]) / 2
    absorption, emission = np.zeros((2, power.size))
    low, high = amplifier.spectroscopy.range_nm
    if low <= stokes_nm <= high:
        doped = float(fiber.core_overlap(stokes_nm)) * fiber.ytterbium_per_m3
        absorption += doped * result.of_glass(lambda glass: glass.absorption_m2(stokes_nm))
        emission += doped * result.of_glass(lambda glass: glass.emission_m2(stokes_nm))
    x = result.excitation
    gain = (absorption + emission) * x - absorption - fiber.background_loss_per_m
    phonons = 1 / np.expm1(PLANCK * shift_hz / (BOLTZMANN * _ROOM_K))
    return StokesWave(
        widths_m=np.append(delivery_m, _against(result, np.diff(result.edges_m))),
        power_w=np.append(result.output_w, _against(result, power)),
        area_m2=float(fiber.effective_area_m2(wavelength_nm)),
        gain_m_per_w=0.0,
        natural_hz=1.0,
        width_hz=1.0,
        detuning_hz=np.zeros(power.size + 1),
        ion_gain_per_m=np.append(0.0, _against(result, gain)),
        ion_seed_w_per_hz_m=np.append(0.0, _against(result, emission * x * PLANCK * frequency)),
        seed_w_per_hz=float(PLANCK * frequency * (phonons + 1)),
    )


def _against(result: AmplifierResult, cells: Array) -> Array:
    """Return values of the cells in the order opposite to the main line."""
    signals = result.amplifier.signals
    backward = bool(signals) and signals[0].direction == "backward"
    return cells if backward else cells[::-1]


def _linewidth_hz(result: AmplifierResult, given_hz: float | None) -> float:
    if given_hz is None:
        signals, bins = result.amplifier.signals, result.amplifier.ase_bins
        if signals or bins is None:
            return signals[0].linewidth_hz
        return float(bins.widths_hz[result.main_line - len(result.amplifier.pumps)])
    return require_within("signal_linewidth_hz", given_hz, "Hz", 0.0)
