"""What ends the climb in power: Brillouin scattering, heat, and instability of the mode.

Each is a formula with inputs that only a measurement knows; where they are uncertain a band is
given. None of these limits is part of the amplifier's equations.
"""

from dataclasses import dataclass

import numpy as np

from .amplifier_result import AmplifierResult
from .quantities import Array, require_positive, require_within

SILICA_SOUND_M_PER_S = 5960.0
BRILLOUIN_GAIN_M_PER_W = (2e-11, 5e-11)
"""From fibers that guide sound badly to bulk silica's, the band used where nothing is measured."""

SILICA_CONDUCTIVITY_W_PER_M_K = 1.38
INSTABILITY_HEAT_W_PER_M = 30.0
"""Order of the average heat at which modes become unstable in fibers that guide a few."""


@dataclass(frozen=True)
class BrillouinThreshold:
    """Signal power in W at which stimulated Brillouin scattering (SBS) begins, as a band.

    Args:
        low_w: for the largest Brillouin gain of the band.
        high_w: for the smallest.
    """

    low_w: float
    high_w: float


def brillouin_threshold(
    result: AmplifierResult,
    delivery_m: float = 0.0,
    gain_m_per_w: tuple[float, float] = BRILLOUIN_GAIN_M_PER_W,
    threshold_gain: float = 21.0,
    signal_linewidth_hz: float = 0.0,
    brillouin_bandwidth_hz: float = 50e6,
) -> BrillouinThreshold:
    """SBS threshold of an amplifier with a passive fiber of the same core behind it.

    P = G A / (g L) · (1 + Δν_signal / Δν_B) with L = ∫P dz / P_out + delivery (Smith, Appl. Opt.
    11, 2489 (1972), G = 21). G itself depends on length and material: 20-23 for very short fibers,
    10-12 for 100 m (Kovalev and Harrison, Opt. Express 15, 17625 (2007)).

    Args:
        result: the amplifier at its power; its distribution is taken as it is.
        delivery_m: length of the passive fiber in m.
        gain_m_per_w: smallest and largest Brillouin gain in m/W.
        threshold_gain: G.
        signal_linewidth_hz: of the signal.
        brillouin_bandwidth_hz: Δν_B, of the order of 50 MHz at 1 µm; heat along the fiber adds the
            spread of the Brillouin shift (:func:`brillouin_shift_per_k_hz`).
    """
    require_within("delivery_m", delivery_m, "m", 0.0)
    require_positive("threshold_gain", threshold_gain, "")
    require_positive("brillouin_bandwidth_hz", brillouin_bandwidth_hz, "Hz")
    require_positive("gain_m_per_w", gain_m_per_w[0], "m/W", gain_m_per_w[1])
    fiber, signal = result.amplifier.fiber, result.amplifier.signals[0]
    area = float(fiber.effective_area_m2(signal.wavelength_nm))
    length = result.effective_length_m + delivery_m
    broadened = 1 + signal_linewidth_hz / brillouin_bandwidth_hz
    low, high = (threshold_gain * area * broadened / (g * length) for g in reversed(gain_m_per_w))
    return BrillouinThreshold(low, high)


def brillouin_shift_hz(wavelength_nm: float, refractive_index: float = 1.45) -> float:
    """2 n v / λ in Hz: how far below the signal the scattered light is."""
    require_positive("wavelength_nm", wavelength_nm, "nm")
    return 2 * refractive_index * SILICA_SOUND_M_PER_S / (wavelength_nm * 1e-9)


def brillouin_shift_per_k_hz(wavelength_nm: float) -> float:
    """Change of the shift with temperature in Hz/K.

    1.17-1.33 MHz/K at 1.32 µm ("Thermal effects of Brillouin gain spectra in single-mode fibers",
    IEEE Photon. Technol. Lett. 2, 718 (1990)), scaled as the shift itself; the middle is taken.
    """
    return 1.25e6 * 1320.0 / wavelength_nm


def core_heating_k(
    result: AmplifierResult,
    outer_diameter_um: float,
    convection_w_per_m2_k: float,
    conductivity_w_per_m_k: float = SILICA_CONDUCTIVITY_W_PER_M_K,
) -> Array:
    """How much hotter than its surroundings the axis is in each cell, in K, (M,).

    ΔT = Q [1/(4πk) + ln(b/a)/(2πk) + 1/(2πbh)] for heat Q per length in a core of radius a in a
    glass of radius b (Brown and Hoffman, IEEE J. Quantum Electron. 37, 207 (2001)).

    Args:
        result: the amplifier.
        outer_diameter_um: 2b of the glass, in µm; a coating is left out.
        convection_w_per_m2_k: h, from 10 (still air) to 1000 (water) and more (a groove).
        conductivity_w_per_m_k: k of the glass.
    """
    core = result.amplifier.fiber.core_diameter_um
    require_within("outer_diameter_um", outer_diameter_um, "µm", core)
    require_positive("convection_w_per_m2_k", convection_w_per_m2_k, "W/m²/K")
    require_positive("conductivity_w_per_m_k", conductivity_w_per_m_k, "W/m/K")
    inside = 1 / (4 * np.pi * conductivity_w_per_m_k)
    glass = np.log(outer_diameter_um / core) / (2 * np.pi * conductivity_w_per_m_k)
    surface = 1 / (np.pi * outer_diameter_um * 1e-6 * convection_w_per_m2_k)
    return np.asarray(result.heat_w_per_m * (inside + glass + surface))


@dataclass(frozen=True)
class InstabilityMargin:
    """How far the heat is from the order at which transverse modes become unstable (TMI).

    Args:
        average_w_per_m: heat over length.
        peak_w_per_m: at the hottest place; a fiber pumped from one end has much of its heat there.
        margin: threshold over average; below 1 instability is to be expected.
    """

    average_w_per_m: float
    peak_w_per_m: float
    margin: float


def instability_margin(
    result: AmplifierResult, threshold_w_per_m: float = INSTABILITY_HEAT_W_PER_M
) -> InstabilityMargin:
    """Compare the average heat with a rule of thumb of some 30 W/m.

    The rule condenses measurements of fibers that guide a few modes (Jauregui et al., Opt. Express
    23, 20203 (2015)); a fiber that guides one mode alone has no such limit.
    """
    require_positive("threshold_w_per_m", threshold_w_per_m, "W/m")
    average = result.heat_w / result.amplifier.fiber.length_m
    return InstabilityMargin(
        average, float(result.heat_w_per_m.max()), threshold_w_per_m / max(average, 1e-12)
    )
