"""Cross-sections of an ion of two manifolds, over wavelength and temperature."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .quantities import SECOND_RADIATION_CONSTANT, Array, require_positive, require_within


class McCumberFit(NamedTuple):
    """How well emission and absorption obey the McCumber relation.

    Args:
        temperature_k: temperature at which they do so best.
        zero_line_nm: wavelength at which the two cross-sections are equal.
        rms: root mean square deviation of ln(emission / absorption).
    """

    temperature_k: float
    zero_line_nm: float
    rms: float


@dataclass(frozen=True)
class Spectroscopy:
    """Absorption and emission cross-sections and the lifetime of the upper manifold.

    Args:
        name: what it is called in results.
        absorption: absorption cross-section in m² of a wavelength in nm.
        emission: emission cross-section in m² of a wavelength in nm.
        range_nm: first and last wavelength that the two answer for.
        lifetime_s: lifetime of the upper manifold in s.
        zero_line_nm: wavelength of the transition between the lowest levels.
        reference_temperature_k: temperature that ``absorption`` is given for.
        temperature_k: temperature that the cross-sections are asked for. Emission is kept and
            absorption follows the Boltzmann factor of the McCumber relation: a first-order model
            (it gives the sign and the size of the change of Moore et al., Opt. Commun. 284, 5774
            (2011): less at 920 nm and more at 1020-1120 nm when hot).

    Raises:
        ValueError: an impossible lifetime or temperature; a wavelength outside the range.
    """

    name: str
    absorption: Callable[[Array], Array]
    emission: Callable[[Array], Array]
    range_nm: tuple[float, float]
    lifetime_s: float
    zero_line_nm: float = 976.0
    reference_temperature_k: float = 293.15
    temperature_k: float = 293.15

    def __post_init__(self) -> None:
        require_positive("lifetime_s", self.lifetime_s, "s", 1.0)
        require_within("temperature_k", self.temperature_k, "K", 77.0, 1500.0)

    def absorption_m2(self, wavelength_nm: ArrayLike) -> Array:
        """Absorption cross-section in m², of the shape of the wavelengths."""
        wavelength = self._checked(wavelength_nm)
        change = 1 / self.temperature_k - 1 / self.reference_temperature_k
        energy = SECOND_RADIATION_CONSTANT * 1e9 * (1 / wavelength - 1 / self.zero_line_nm)
        return self.absorption(wavelength) * np.exp(energy * change)

    def emission_m2(self, wavelength_nm: ArrayLike) -> Array:
        """Emission cross-section in m², of the shape of the wavelengths."""
        return self.emission(self._checked(wavelength_nm))

    def transparency(self, wavelength_nm: ArrayLike) -> Array:
        """Share of excited ions at which gain and absorption cancel."""
        absorption = self.absorption_m2(wavelength_nm)
        return absorption / (absorption + self.emission_m2(wavelength_nm))

    def at_temperature(self, temperature_k: float) -> "Spectroscopy":
        """The same glass at another temperature in K."""
        return replace(self, temperature_k=temperature_k)

    def mccumber_fit(self, from_nm: float = 985.0, to_nm: float = 1035.0) -> McCumberFit:
        """Fit the McCumber relation, ln(σe/σa) = (hc/kT)(1/λ0 - 1/λ), over a band in nm.

        A temperature far from the measurement's, or a large rms, says that the two tables do not
        belong together, or that one has wrong units or a bad tail.

        Raises:
            ValueError: a cross-section in the band is not positive.
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
