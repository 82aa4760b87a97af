"""Thermal limits of the power: heating of the core, and transverse mode instability."""

from dataclasses import dataclass

import numpy as np

from .amplifier_result import AmplifierResult
from .quantities import Array, require_positive, require_within

SILICA_CONDUCTIVITY_W_PER_M_K = 1.38
INSTABILITY_HEAT_W_PER_M = 30.0
"""Order of the average heat at which modes become unstable in fibers that guide a few modes."""


def core_heating_k(
    result: AmplifierResult,
    outer_diameter_um: float,
    convection_w_per_m2_k: float,
    conductivity_w_per_m_k: float = SILICA_CONDUCTIVITY_W_PER_M_K,
) -> Array:
    """Return the temperature of the axis above the surroundings in each cell, in K, (M,).

    ΔT = Q [1/(4πk) + ln(b/a)/(2πk) + 1/(2πbh)] for heat Q per length in a core of radius a in a
    glass of radius b (Brown and Hoffman, IEEE J. Quantum Electron. 37, 207 (2001)).

    Args:
        result: The amplifier.
        outer_diameter_um: Diameter 2b of the glass in µm; a coating is not included.
        convection_w_per_m2_k: Heat transfer coefficient h in W/m²/K, from 10 (still air) to 1000
            (water) and more (a metal groove).
        conductivity_w_per_m_k: Thermal conductivity k of the glass in W/m/K.
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
    """The heat relative to the onset of transverse mode instability (TMI).

    Args:
        average_w_per_m: Heat divided by length in W/m.
        peak_w_per_m: Largest heat per length in W/m, near the pumped end.
        margin: Threshold divided by the average; instability is expected below 1.
    """

    average_w_per_m: float
    peak_w_per_m: float
    margin: float


def instability_margin(
    result: AmplifierResult, threshold_w_per_m: float = INSTABILITY_HEAT_W_PER_M
) -> InstabilityMargin:
    """Compare the average heat with the empirical threshold of about 30 W/m.

    The threshold summarises measurements of fibers that guide a few modes (Jauregui et al., Opt.
    Express 23, 20203 (2015)). A fiber that guides a single mode has no such limit.
    """
    require_positive("threshold_w_per_m", threshold_w_per_m, "W/m")
    average = result.heat_w / result.amplifier.fiber.length_m
    return InstabilityMargin(
        average, float(result.heat_w_per_m.max()), threshold_w_per_m / max(average, 1e-12)
    )
