"""Ytterbium in silica: a parametric model fitted to published values of five glasses.

Emission is a sum of ten Gaussians in wavenumber near the transitions between the Stark levels of
ytterbium in silica. Absorption is emission times the McCumber factor, so both are consistent at
every wavelength and no tail ends abruptly. All glasses share positions and widths. The amplitudes
and the zero line of each glass are fitted to twelve published values: absorption at 915, 976, 1000,
1018 and 1030 nm, emission at 976, 1000, 1018, 1030, 1045, 1064 and 1090 nm. The deviation is at
most 6 % (germanosilicate and aluminosilicate) or 2.5 % (the others). The glasses differ by more
than that: use :func:`ytterbium_band`.
"""

from dataclasses import dataclass

import numpy as np

from .quantities import SECOND_RADIATION_CONSTANT, Array
from .spectroscopy import Spectroscopy

RANGE_NM = (895.0, 1130.0)
LIFETIME_S = 0.85e-3
TEMPERATURE_K = 293.15

_CENTRES_NM = (868.0, 930.5, 963.0, 976.0, 981.4, 1008.5, 1026.4, 1049.9, 1076.6, 1126.4)
_ZERO_LINE = 3  # place of the line at 976 nm
_HOMOGENEOUS_PER_CM, _FWHM_PER_SIGMA = 20.0, 2.3548
_WIDTHS_PER_CM = (250.0, 196.8, 119.7, 34.0, 140.0, 140.3, 124.8, 168.1, 173.9, 257.0)
# Amplitudes of emission in 1e-25 m², and the zero line in nm.
_GLASSES = {
    "germanosilicate": (
        (0.01, 0.4048, 0.8015, 21.821, 2.9567, 1.3777, 5.1171, 2.0432, 1.6669, 0.9081),
        977.33,
    ),
    "aluminosilicate": (
        (0.01, 0.4719, 0.8024, 23.003, 3.9771, 2.2819, 5.7509, 2.9310, 1.5129, 2.4301),
        974.76,
    ),
    "ysf": (
        (0.01, 0.3800, 0.7947, 17.638, 1.6103, 3.3150, 4.3025, 1.5195, 1.1959, 0.4584),
        975.59,
    ),
    "liekki": (
        (0.01, 0.3560, 0.7979, 22.626, 1.4323, 2.9846, 4.5052, 1.7696, 1.1550, 1.0378),
        976.22,
    ),
    "gen8": (
        (0.01, 0.2956, 0.7915, 14.562, 2.1244, 3.3631, 4.7582, 3.2038, 1.6297, 0.4428),
        976.57,
    ),
}
YTTERBIUM_GLASSES = tuple(_GLASSES)
"""The names of the glasses, in the order of :func:`ytterbium_band`."""


def ytterbium(glass: str = "aluminosilicate", lifetime_s: float = LIFETIME_S) -> Spectroscopy:
    """Return the model of a glass at 293.15 K, from 895 to 1130 nm.

    Args:
        glass: ``germanosilicate`` (values of Paschotta et al., IEEE JQE 33, 1049 (1997)),
            ``aluminosilicate``, or one of three commercial fibers, ``ysf``, ``liekki``, ``gen8``.
        lifetime_s: Lifetime of the upper manifold in s.

    Raises:
        ValueError: The glass is unknown.
    """
    if glass not in _GLASSES:
        raise ValueError(f"glass = {glass!r}: allowed is {', '.join(_GLASSES)}")
    model = GlassModel(*_GLASSES[glass])
    absorption, emission = model(TEMPERATURE_K)
    return Spectroscopy(
        name=glass,
        absorption=absorption,
        emission=emission,
        range_nm=RANGE_NM,
        lifetime_s=lifetime_s,
        zero_line_nm=model.zero_line_nm,
        reference_temperature_k=TEMPERATURE_K,
        temperature_k=TEMPERATURE_K,
        broadened=model,
    )


def ytterbium_band(lifetime_s: float = LIFETIME_S) -> tuple[Spectroscopy, ...]:
    """Return all glasses: their spread is the uncertainty of a prediction by spectroscopy."""
    return tuple(ytterbium(glass, lifetime_s) for glass in _GLASSES)


@dataclass(frozen=True)
class GlassModel:
    """Cross-sections of a glass with the line width of a temperature.

    The zero line has a homogeneous part of 20 cm⁻¹ (FWHM) at 293 K that grows as T², the law of
    two-phonon scattering in glass. Its size is an assumption. The other lines are so broad that
    their homogeneous part does not count. The area of a line does not change.

    Args:
        amplitudes: Amplitudes of emission in 1e-25 m².
        zero_line_nm: Wavelength at which absorption and emission are equal, in nm.
    """

    amplitudes: tuple[float, ...]
    zero_line_nm: float

    def __call__(self, temperature_k: float) -> tuple["McCumberAbsorption", "GaussianLines"]:
        """Return absorption and emission with the line width at a temperature in K."""
        growth = (temperature_k / TEMPERATURE_K) ** 4 - 1
        variance = (_HOMOGENEOUS_PER_CM / _FWHM_PER_SIGMA) ** 2 * growth
        emission = GaussianLines(self.amplitudes, variance)
        return McCumberAbsorption(emission, self.zero_line_nm), emission


@dataclass(frozen=True)
class GaussianLines:
    """Emission cross-section as a sum of Gaussians in wavenumber.

    Args:
        amplitudes: Amplitudes at the reference temperature in 1e-25 m².
        added_variance: Added to the squared width of the zero line, in 1/cm².
    """

    amplitudes: tuple[float, ...]
    added_variance: float = 0.0

    def __call__(self, wavelength_nm: Array) -> Array:
        """Return the emission cross-section in m² at wavelengths in nm."""
        amplitudes, widths = np.array(self.amplitudes), np.array(_WIDTHS_PER_CM)
        if self.added_variance:
            widths[_ZERO_LINE] = np.sqrt(widths[_ZERO_LINE] ** 2 + self.added_variance)
            amplitudes[_ZERO_LINE] *= _WIDTHS_PER_CM[_ZERO_LINE] / widths[_ZERO_LINE]
        wavenumber = 1e7 / np.asarray(wavelength_nm)[..., None]
        distance = (wavenumber - 1e7 / np.array(_CENTRES_NM)) / widths
        return 1e-25 * (amplitudes * np.exp(-(distance**2) / 2)).sum(-1)


@dataclass(frozen=True)
class McCumberAbsorption:
    """Absorption from emission by σa = σe exp[(hc/kT)(1/λ - 1/λ0)] at the reference temperature.

    Source: McCumber, Phys. Rev. 136, A954 (1964).
    """

    emission: GaussianLines
    zero_line_nm: float

    def __call__(self, wavelength_nm: Array) -> Array:
        """Return the absorption cross-section in m² at wavelengths in nm."""
        energy = SECOND_RADIATION_CONSTANT * 1e9 * (1 / wavelength_nm - 1 / self.zero_line_nm)
        return self.emission(wavelength_nm) * np.exp(energy / TEMPERATURE_K)
