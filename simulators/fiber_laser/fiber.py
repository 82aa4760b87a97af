"""A doped fiber: geometry, doping, loss, and its mode at a wavelength."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .quantities import Array, require_positive, require_within
from .spectroscopy import Spectroscopy

SINGLE_MODE_V = 2.405
"""V number from which a step-index core guides a second mode, LP11."""

_LEAST_V = 0.8  # below, the mode is hardly guided and Marcuse's formula has no meaning


@dataclass(frozen=True)
class Fiber:
    """A step-index fiber with a uniformly doped core; the signal is in its fundamental mode.

    Args:
        length_m: length in m.
        core_diameter_um: diameter of the core, which is doped all over, in µm.
        core_na: numerical aperture of the core.
        ytterbium_per_m3: ytterbium ions per m³.
        cladding_diameter_um: diameter of the pump cladding in µm; None for a core-pumped fiber.
        background_loss_per_m: loss by scattering and impurities, of light in the core, in 1/m.
        cladding_loss_per_m: the same of light in the cladding; None: as in the core.
        refractive_index: of the core.

    Raises:
        ValueError: a length, diameter, aperture or density that cannot be.
    """

    length_m: float
    core_diameter_um: float
    core_na: float
    ytterbium_per_m3: float
    cladding_diameter_um: float | None = None
    background_loss_per_m: float = 0.005
    cladding_loss_per_m: float | None = None
    refractive_index: float = 1.45

    def __post_init__(self) -> None:
        require_positive("length_m", self.length_m, "m", 1e5)
        require_positive("core_diameter_um", self.core_diameter_um, "µm", 1000)
        require_positive("core_na", self.core_na, "", 1.0)
        require_positive("ytterbium_per_m3", self.ytterbium_per_m3, "1/m³", 2e28)
        require_within("background_loss_per_m", self.background_loss_per_m, "1/m", 0.0, 100.0)
        require_within("refractive_index", self.refractive_index, "", 1.0, 4.0)
        if self.cladding_loss_per_m is not None:
            require_within("cladding_loss_per_m", self.cladding_loss_per_m, "1/m", 0.0, 100.0)
        if self.cladding_diameter_um is not None:
            require_within(
                "cladding_diameter_um", self.cladding_diameter_um, "µm", self.core_diameter_um, 5e3
            )

    @property
    def core_area_m2(self) -> float:
        """Area of the core in m²."""
        return np.pi * (self.core_diameter_um * 1e-6) ** 2 / 4

    def v_number(self, wavelength_nm: ArrayLike) -> Array:
        """V = 2π r NA / λ; a single mode is guided up to ``SINGLE_MODE_V``."""
        radius_nm = self.core_diameter_um * 1e3 / 2
        return 2 * np.pi * radius_nm * self.core_na / np.asarray(wavelength_nm, dtype=float)

    def mode_field_radius_um(self, wavelength_nm: ArrayLike) -> Array:
        """1/e² radius of the Gaussian nearest to the fundamental mode, in µm.

        w/r = 0.65 + 1.619 V^-1.5 + 2.879 V^-6 (Marcuse, Bell Syst. Tech. J. 56, 703 (1977)).

        Raises:
            ValueError: V below 0.8.
        """
        v = self.v_number(wavelength_nm)
        if v.min() < _LEAST_V:
            raise ValueError(
                f"core_diameter_um = {self.core_diameter_um:g} µm with core_na = {self.core_na:g}: "
                f"V = {v.min():.2f} at the longest wavelength, allowed is at least {_LEAST_V}"
            )
        return self.core_diameter_um / 2 * (0.65 + 1.619 * v**-1.5 + 2.879 * v**-6.0)

    def effective_area_m2(self, wavelength_nm: ArrayLike) -> Array:
        """π w² of the fundamental mode in m²."""
        return np.pi * (self.mode_field_radius_um(wavelength_nm) * 1e-6) ** 2

    def core_overlap(self, wavelength_nm: ArrayLike) -> Array:
        """Share of the fundamental mode's power in the core, 1 - exp(-2 r²/w²)."""
        ratio = self.core_diameter_um / 2 / self.mode_field_radius_um(wavelength_nm)
        return 1 - np.exp(-2 * ratio**2)

    def cladding_overlap(self) -> float:
        """Share of the cladding's light in the core: the ratio of the areas.

        Raises:
            ValueError: the fiber has no pump cladding.
        """
        if self.cladding_diameter_um is None:
            raise ValueError(
                "cladding_diameter_um is not given: a pump in the cladding needs it; set it, or "
                "pump through the core"
            )
        return (self.core_diameter_um / self.cladding_diameter_um) ** 2


def ytterbium_from_cladding_absorption(
    absorption_db_per_m: float,
    wavelength_nm: float,
    core_diameter_um: float,
    cladding_diameter_um: float,
    spectroscopy: Spectroscopy,
) -> float:
    """Ions per m³ of a fiber sold by its small-signal cladding absorption in dB/m.

    N = α ln(10)/10 / (Γ σa) with Γ the ratio of the areas of core and cladding.

    Raises:
        ValueError: an absorption that is not positive, or a core larger than its cladding.
    """
    require_positive("absorption_db_per_m", absorption_db_per_m, "dB/m", 1e3)
    require_positive("core_diameter_um", core_diameter_um, "µm", cladding_diameter_um)
    overlap = (core_diameter_um / cladding_diameter_um) ** 2
    nepers_per_m = absorption_db_per_m * np.log(10) / 10
    return float(nepers_per_m / (overlap * spectroscopy.absorption_m2(wavelength_nm)))
