"""Constants of nature, in SI units (CODATA, by way of scipy)."""

from scipy.constants import (  # type: ignore[import-untyped]
    Boltzmann,
    Planck,
    speed_of_light,
)

SPEED_OF_LIGHT: float = speed_of_light
PLANCK: float = Planck
BOLTZMANN: float = Boltzmann
SECOND_RADIATION_CONSTANT: float = Planck * speed_of_light / Boltzmann
"""h c / k in m K."""
