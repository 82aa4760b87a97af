"""Cross-sections of ytterbium: two manifolds, their sub-levels, wavelength and temperature."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .quantities import (
    PLANCK,
    SECOND_RADIATION_CONSTANT,
    SPEED_OF_LIGHT,
    Array,
    require_positive,
    require_within,
)

CrossSection = Callable[[Array], Array]

LOWER_LEVELS_PER_CM = (0.0, 503.0, 721.0, 957.0)
"""Sub-levels of 2F7/2 above the lowest, from the emission lines at 1026, 1050 and 1077 nm."""
UPPER_LEVELS_PER_CM = (0.0, 430.0, 690.0)
"""Sub-levels of 2F5/2 above the lowest, from the absorption between 910 and 940 nm."""
COLDEST_K, HOTTEST_K = 200.0, 600.0
# Bands of transitions between excited sub-levels, relative to the zero line, and their width.
_HOT_ABSORPTION_PER_CM, _HOT_EMISSION_PER_CM, _HOT_WIDTH_PER_CM = 100.0, -290.0, 150.0
_K_PER_PER_CM = SECOND_RADIATION_CONSTANT * 100  # h c / k for energies in 1/cm
_SUM_POINTS = 1201
_NODES, _ONE_TEMPERATURE_K = 9, 1e-6  # of the interpolation in temperature


class McCumberFit(NamedTuple):
    """A fit of the McCumber relation to emission and absorption.

    Args:
        temperature_k: Fitted temperature in K.
        zero_line_nm: Wavelength at which the two cross-sections are equal, in nm.
        rms: Root mean square deviation of ln(emission / absorption).
    """

    temperature_k: float
    zero_line_nm: float
    rms: float


@dataclass(frozen=True)
class Spectroscopy:
    """Absorption and emission cross-sections and the lifetime of the upper manifold.

    The cross-sections are given at a reference temperature. At another temperature, with the
    populations f_l and f_u of the lowest sub-levels of both manifolds:

    - absorption on the short side of the zero line starts in the lowest sub-level and scales as
      f_l;
    - emission on the long side starts in the lowest excited sub-level and scales as f_u;
    - the respective other cross-section follows from the McCumber relation
      σe/σa = exp[(ε - hν)/kT] with ε(T) = E_zl + kT ln(Z_l/Z_u) (McCumber, Phys. Rev. 136, A954
      (1964));
    - transitions between excited sub-levels gain strength, as two bands near 966 and 1004 nm. Their
      strengths follow from the sum rules: ∫σa dν and ∫σe ν² dν, which is proportional to the
      radiative decay rate, do not depend on temperature.

    The signs agree with the measurements of Moore et al., Opt. Commun. 284, 5774 (2011): absorption
    falls at 920 and 977 nm and rises from 1020 to 1120 nm; emission shifts from above 1010 nm to
    below, except at 977 nm, where it falls.

    Args:
        name: Name in results.
        absorption: Absorption cross-section in m² as a function of wavelength in nm.
        emission: Emission cross-section in m² as a function of wavelength in nm.
        range_nm: Range of wavelengths in nm of both functions.
        lifetime_s: Lifetime of the upper manifold in s.
        zero_line_nm: Wavelength at which both are equal at the reference temperature, in nm.
        reference_temperature_k: Temperature of ``absorption`` and ``emission`` in K.
        temperature_k: Temperature of the results in K, from 200 to 600.
        broadened: Returns absorption and emission with the line widths at a temperature in K and
            the populations at the reference; None keeps the widths.

    Raises:
        ValueError: The lifetime or temperature is out of range. When evaluated: a wavelength is
            outside the range.
    """

    name: str
    absorption: CrossSection
    emission: CrossSection
    range_nm: tuple[float, float]
    lifetime_s: float
    zero_line_nm: float = 976.0
    reference_temperature_k: float = 293.15
    temperature_k: float = 293.15
    broadened: Callable[[float], tuple[CrossSection, CrossSection]] | None = None

    def __post_init__(self) -> None:
        require_positive("lifetime_s", self.lifetime_s, "s", 1.0)
        require_within("temperature_k", self.temperature_k, "K", COLDEST_K, HOTTEST_K)

    def absorption_m2(self, wavelength_nm: ArrayLike) -> Array:
        """Return the absorption cross-section in m², of the shape of the wavelengths."""
        wavelength = self._checked(wavelength_nm)
        if self.temperature_k == self.reference_temperature_k:
            return self.absorption(wavelength)
        return self._at_temperature(wavelength)[0]

    def emission_m2(self, wavelength_nm: ArrayLike) -> Array:
        """Return the emission cross-section in m², of the shape of the wavelengths."""
        wavelength = self._checked(wavelength_nm)
        if self.temperature_k == self.reference_temperature_k:
            return self.emission(wavelength)
        return self._at_temperature(wavelength)[1]

    def transparency(self, wavelength_nm: ArrayLike) -> Array:
        """Return the fraction of excited ions at which gain and absorption cancel."""
        absorption = self.absorption_m2(wavelength_nm)
        return absorption / (absorption + self.emission_m2(wavelength_nm))

    def at_temperature(self, temperature_k: float) -> "Spectroscopy":
        """Return the same glass at another temperature in K."""
        return replace(self, temperature_k=temperature_k)

    def along(self, temperature_k: Array, quantity: "Callable[[Spectroscopy], ArrayLike]") -> Array:
        """Return a quantity of the glass at each of M temperatures in K, (M, ...).

        It is interpolated by the polynomial through nine temperatures of their range. The error of
        a cross-section is below 1e-5 over 300 K.

        Args:
            temperature_k: The temperatures in K, (M,).
            quantity: A smooth function of the glass at a temperature.
        """
        low, high = float(temperature_k.min()), float(temperature_k.max())
        if high - low < _ONE_TEMPERATURE_K:
            value = np.asarray(quantity(self.at_temperature(low)))
            return np.broadcast_to(value, (temperature_k.size, *value.shape))
        nodes = np.cos(np.pi * (np.arange(_NODES) + 0.5) / _NODES)
        middle, half = (high + low) / 2, (high - low) / 2
        values = np.array([quantity(self.at_temperature(middle + half * at)) for at in nodes])
        vandermonde = np.polynomial.chebyshev.chebvander
        polynomial = np.linalg.solve(vandermonde(nodes, _NODES - 1), values.reshape(_NODES, -1))
        found = vandermonde((temperature_k - middle) / half, _NODES - 1) @ polynomial
        return np.asarray(found.reshape(temperature_k.size, *values.shape[1:]), dtype=np.float64)

    @cached_property
    def mean_fluorescence_photon_j(self) -> float:
        """Mean energy of a spontaneously emitted photon in J.

        The emission rate per frequency is proportional to σe ν² (Füchtbauer and Ladenburg).
        """
        low, high = self.range_nm
        frequency = np.linspace(SPEED_OF_LIGHT * 1e9 / high, SPEED_OF_LIGHT * 1e9 / low, 2001)
        rate = self.emission_m2(np.clip(SPEED_OF_LIGHT * 1e9 / frequency, low, high))
        return float(PLANCK * np.average(frequency, weights=rate * frequency**2))

    def mccumber_fit(self, from_nm: float = 985.0, to_nm: float = 1035.0) -> McCumberFit:
        """Fit the McCumber relation, ln(σe/σa) = (hc/kT)(1/λ0 - 1/λ), over a band in nm.

        A temperature far from that of the measurement, or a large rms, means that the two tables do
        not belong together, or that one has wrong units or a bad tail.

        Raises:
            ValueError: A cross-section in the band is not positive.
        """
        wavelength = np.linspace(from_nm, to_nm, 101)
        absorption, emission = self.absorption_m2(wavelength), self.emission_m2(wavelength)
        if min(absorption.min(), emission.min()) <= 0:
            raise ValueError(
                f"cross-sections of {self.name!r} between {from_nm:g} and {to_nm:g} nm must be "
                "positive for the McCumber relation"
            )
        ratio = np.log(emission / absorption)
        slope, offset = np.polyfit(1e9 / wavelength, ratio, 1)
        rms = float(np.sqrt(np.mean((np.polyval((slope, offset), 1e9 / wavelength) - ratio) ** 2)))
        temperature_k = float(-SECOND_RADIATION_CONSTANT / slope)
        return McCumberFit(temperature_k, float(-1e9 * slope / offset), rms)

    def _at_temperature(self, wavelength_nm: Array) -> tuple[Array, Array]:
        absorption, emission = self._without_hot_bands(wavelength_nm)
        strengths = self._hot_band_strengths
        bands = self._hot_bands(wavelength_nm)
        return (
            absorption + strengths[0] * bands[0][0] + strengths[1] * bands[1][0],
            emission + strengths[0] * bands[0][1] + strengths[1] * bands[1][1],
        )

    def _without_hot_bands(self, wavelength_nm: Array) -> tuple[Array, Array]:
        """Return absorption and emission that start in the lowest sub-levels, in m²."""
        now, before = self.temperature_k, self.reference_temperature_k
        shapes = (self.absorption, self.emission)
        absorption, emission = self.broadened(now) if self.broadened else shapes
        absorbed, emitted = absorption(wavelength_nm), emission(wavelength_nm)
        energy = 1e7 / wavelength_nm
        ratio = (self._epsilon_per_cm(now) - energy) / now
        ratio = ratio - (self._epsilon_per_cm(before) - energy) / before
        mccumber = np.exp(_K_PER_PER_CM * ratio)
        lower = _partition(LOWER_LEVELS_PER_CM, before) / _partition(LOWER_LEVELS_PER_CM, now)
        upper = _partition(UPPER_LEVELS_PER_CM, before) / _partition(UPPER_LEVELS_PER_CM, now)
        short = energy >= self._zero_line_per_cm
        return (
            absorbed * np.where(short, lower, upper / mccumber),
            emitted * np.where(short, lower * mccumber, upper),
        )

    @cached_property
    def _hot_band_strengths(self) -> Array:
        """Strengths of the two hot bands by which both sum rules hold."""
        wavelength = 1e7 / np.linspace(1e7 / self.range_nm[1], 1e7 / self.range_nm[0], _SUM_POINTS)
        found = _sums(wavelength, *self._without_hot_bands(wavelength))
        wanted = _sums(wavelength, self.absorption(wavelength), self.emission(wavelength))
        bands = [_sums(wavelength, *band) for band in self._hot_bands(wavelength)]
        return np.asarray(np.linalg.solve(np.array(bands).T, wanted - found), dtype=np.float64)

    def _hot_bands(self, wavelength_nm: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """Return absorption and emission of both hot bands at unit strength."""
        energy = 1e7 / wavelength_nm
        mccumber = np.exp(
            _K_PER_PER_CM * (self._epsilon_per_cm(self.temperature_k) - energy) / self.temperature_k
        )
        absorbing, emitting = (
            np.exp(-(((energy - self._zero_line_per_cm - at) / _HOT_WIDTH_PER_CM) ** 2) / 2)
            for at in (_HOT_ABSORPTION_PER_CM, _HOT_EMISSION_PER_CM)
        )
        return (absorbing, absorbing * mccumber), (emitting / mccumber, emitting)

    @property
    def _zero_line_per_cm(self) -> float:
        """Energy between the lowest sub-levels of both manifolds."""
        before = self.reference_temperature_k
        return 1e7 / self.zero_line_nm - _free_energy_per_cm(before)

    def _epsilon_per_cm(self, temperature_k: float) -> float:
        return self._zero_line_per_cm + _free_energy_per_cm(temperature_k)

    def _checked(self, wavelength_nm: ArrayLike) -> Array:
        wavelength = np.asarray(wavelength_nm, dtype=float)
        low, high = self.range_nm
        outside = ~((wavelength >= low) & (wavelength <= high))
        if outside.any():
            raise ValueError(
                f"wavelength_nm = {wavelength[outside].flat[0]:g} nm: spectroscopy "
                f"{self.name!r} covers {low:g} to {high:g} nm"
            )
        return wavelength


def _partition(levels_per_cm: tuple[float, ...], temperature_k: float) -> float:
    return float(np.exp(-_K_PER_PER_CM * np.array(levels_per_cm) / temperature_k).sum())


def _free_energy_per_cm(temperature_k: float) -> float:
    """Return kT ln(Z_l/Z_u) in 1/cm."""
    lower = _partition(LOWER_LEVELS_PER_CM, temperature_k)
    upper = _partition(UPPER_LEVELS_PER_CM, temperature_k)
    return temperature_k / _K_PER_PER_CM * float(np.log(lower / upper))


def _sums(wavelength_nm: Array, absorption: Array, emission: Array) -> Array:
    """Return ∫σa dν and ∫σe ν² dν in arbitrary units."""
    energy = 1e7 / wavelength_nm
    return np.array(
        [np.trapezoid(absorption, energy), np.trapezoid(emission * (energy / 1e4) ** 2, energy)]
    )
