"""Thermal limits of the power: heating of the core, and transverse mode instability."""

from dataclasses import dataclass

import numpy as np

from .amplifier_result import AmplifierResult
from .quantities import Array, require_positive
from .self_heating import SILICA_CONDUCTIVITY_W_PER_M_K, Cooling

INSTABILITY_HEAT_W_PER_M = 30.0
"""Order of the average heat at which modes become unstable in fibers that guide a few modes."""


def core_heating_k(
    result: AmplifierResult,
    outer_diameter_um: float,
    convection_w_per_m2_k: float,
    conductivity_w_per_m_k: float = SILICA_CONDUCTIVITY_W_PER_M_K,
) -> Array:
    """Return the temperature of the axis above the surroundings in each cell, in K, (M,).

    The heat of the result times the resistance of :class:`Cooling`, which has the arguments. With
    the amplifier's ``cooling``, this heat also sets the cross-sections; see ``result.heating_k``.
    """
    cooling = Cooling(convection_w_per_m2_k, outer_diameter_um, conductivity_w_per_m_k)
    return np.asarray(result.heat_w_per_m * cooling.resistance_k_m_per_w(result.amplifier.fiber))


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
