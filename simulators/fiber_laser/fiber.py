"""A doped fiber: geometry, doping, loss, and its modes at a wavelength."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from .modes import Mode, mode_at
from .quantities import Array, require_choice, require_positive, require_within
from .spectroscopy import Spectroscopy

SINGLE_MODE_V = 2.405
"""V number above which a step-index core guides a second mode, LP11."""

LEAST_YTTERBIUM_PER_M3 = 1e22
"""Density below which a value is probably in 1/cm³: ytterbium fibers have 1e24 to 1e27 per m³."""

MOST_YTTERBIUM_PER_M3 = 2e28
"""Largest allowed density, that of the ions of solid silica; 1e20 1/cm³ is 1e26 1/m³."""

_LEAST_V = 0.8  # below, the core guides the mode only weakly


@dataclass(frozen=True)
class Fiber:
    """A step-index fiber with a doped core, or with a doped disc or ring in its core.

    The excitation is uniform over the doped area: transverse hole burning is not modelled.

    Args:
        length_m: Length in m.
        core_diameter_um: Diameter of the core in µm.
        core_na: Numerical aperture of the core.
        ytterbium_per_m3: Ytterbium ions per m³ of the doped area.
        cladding_diameter_um: Diameter of the pump cladding in µm; None for a core-pumped fiber.
        background_loss_per_m: Loss of light in the core by scattering and impurities in 1/m.
        cladding_loss_per_m: Loss of light in the cladding in 1/m; None: the loss of the core.
        refractive_index: Refractive index of the core.
        doped_diameter_um: Outer diameter of the doped area in µm; None: the core diameter.
        doped_inner_diameter_um: Inner diameter of the doped area in µm.
        mode_model: ``exact`` for LP modes, ``gaussian`` for the Gaussian approximation.
        bend_radius_m: Radius of the coil in m, which adds the bend loss of each mode; None: none.
        overlap_scale: Factor on the overlap of modes with the doped area, a calibration.

    Raises:
        ValueError: A length, diameter, aperture or density is invalid.
    """

    length_m: float
    core_diameter_um: float
    core_na: float
    ytterbium_per_m3: float
    cladding_diameter_um: float | None = None
    background_loss_per_m: float = 0.005
    cladding_loss_per_m: float | None = None
    refractive_index: float = 1.45
    doped_diameter_um: float | None = None
    doped_inner_diameter_um: float = 0.0
    mode_model: Literal["exact", "gaussian"] = "exact"
    bend_radius_m: float | None = None
    overlap_scale: float = 1.0

    def __post_init__(self) -> None:
        require_positive("length_m", self.length_m, "m", 1e5)
        core = require_positive("core_diameter_um", self.core_diameter_um, "µm", 1000)
        require_positive("core_na", self.core_na, "", 1.0)
        require_positive("ytterbium_per_m3", self.ytterbium_per_m3, "1/m³", MOST_YTTERBIUM_PER_M3)
        require_within("background_loss_per_m", self.background_loss_per_m, "1/m", 0.0, 100.0)
        require_within("refractive_index", self.refractive_index, "", 1.0, 4.0)
        require_choice("mode_model", self.mode_model, ("exact", "gaussian"))
        if self.cladding_loss_per_m is not None:
            require_within("cladding_loss_per_m", self.cladding_loss_per_m, "1/m", 0.0, 100.0)
        if self.cladding_diameter_um is not None:
            require_within("cladding_diameter_um", self.cladding_diameter_um, "µm", core, 5e3)
        if self.doped_diameter_um is not None:
            require_positive("doped_diameter_um", self.doped_diameter_um, "µm", core)
        outer = core if self.doped_diameter_um is None else self.doped_diameter_um
        require_within("doped_inner_diameter_um", self.doped_inner_diameter_um, "µm", 0.0)
        if not self.doped_inner_diameter_um < outer:
            raise ValueError(
                f"doped_inner_diameter_um = {self.doped_inner_diameter_um:g} µm: allowed is less "
                f"than {outer:g} µm, the outer diameter of the doped area"
            )
        require_positive("overlap_scale", self.overlap_scale, "", 2.0)
        if self.bend_radius_m is not None:
            require_positive("bend_radius_m", self.bend_radius_m, "m")

    @property
    def core_area_m2(self) -> float:
        """Area of the core in m²."""
        return np.pi * (self.core_diameter_um * 1e-6) ** 2 / 4

    @property
    def doped_area_m2(self) -> float:
        """Doped area in m²."""
        outer, inner = self._doped_radii
        return self.core_area_m2 * (outer**2 - inner**2)

    def v_number(self, wavelength_nm: ArrayLike) -> Array:
        """Return V = 2π r NA / λ; the core guides a single mode up to ``SINGLE_MODE_V``."""
        radius_nm = self.core_diameter_um * 1e3 / 2
        return 2 * np.pi * radius_nm * self.core_na / np.asarray(wavelength_nm, dtype=float)

    def mode(self, wavelength_nm: ArrayLike, name: str = "LP01") -> Mode:
        """Return an LP mode at wavelengths in nm, (n,).

        Raises:
            ValueError: V is below 0.8, or the core does not guide the mode.
        """
        return mode_at(name, self._guiding_v(wavelength_nm))

    def mode_field_radius_um(self, wavelength_nm: ArrayLike) -> Array:
        """Return the 1/e² radius of the Gaussian nearest to the fundamental mode, in µm.

        w/r = 0.65 + 1.619 V^-1.5 + 2.879 V^-6 (Marcuse, Bell Syst. Tech. J. 56, 703 (1977)).

        Raises:
            ValueError: V is below 0.8.
        """
        v = self._guiding_v(wavelength_nm)
        return self.core_diameter_um / 2 * (0.65 + 1.619 * v**-1.5 + 2.879 * v**-6.0)

    def effective_area_m2(self, wavelength_nm: ArrayLike, name: str = "LP01") -> Array:
        """Return the effective area (∫ I dA)² / ∫ I² dA of a mode in m²; π w² of a Gaussian."""
        if self.mode_model == "gaussian":
            return np.pi * (self.mode_field_radius_um(wavelength_nm) * 1e-6) ** 2
        area = self.mode(wavelength_nm, name).effective_area() * self.core_area_m2 / np.pi
        return area.reshape(np.shape(wavelength_nm))

    def core_overlap(self, wavelength_nm: ArrayLike, name: str = "LP01") -> Array:
        """Return the fraction of a mode's power in the doped area."""
        outer, inner = self._doped_radii
        if self.mode_model == "gaussian":
            ratio = self.core_diameter_um / 2 / self.mode_field_radius_um(wavelength_nm)
            shares = np.exp(-2 * (inner * ratio) ** 2) - np.exp(-2 * (outer * ratio) ** 2)
            return self.overlap_scale * shares
        mode = self.mode(wavelength_nm, name)
        share = mode.power_within(outer)
        if inner:
            share = share - mode.power_within(inner)
        return self.overlap_scale * share.reshape(np.shape(wavelength_nm))

    def bend_loss_per_m(self, wavelength_nm: ArrayLike, name: str = "LP01") -> Array:
        """Return the bend loss of a mode in 1/m; 0 for a straight fiber."""
        if self.bend_radius_m is None:
            return np.zeros(np.shape(wavelength_nm))
        radius_m, mode = self.core_diameter_um * 0.5e-6, self.mode(wavelength_nm, name)
        wavenumber = 2e9 * np.pi * self.refractive_index / np.atleast_1d(wavelength_nm)
        beta = np.sqrt(wavenumber**2 - (mode.u / radius_m) ** 2)
        loss = mode.bend_loss_per_m(radius_m, beta, self.bend_radius_m)
        return loss.reshape(np.shape(wavelength_nm))

    def cladding_overlap(self) -> float:
        """Return the fraction of the cladding's light in the doped area: the ratio of the areas.

        Raises:
            ValueError: The fiber has no pump cladding.
        """
        if self.cladding_diameter_um is None:
            raise ValueError(
                "cladding_diameter_um is not given: a pump in the cladding needs it; set it, or "
                "pump through the core"
            )
        outer, inner = self._doped_radii
        return (self.core_diameter_um / self.cladding_diameter_um) ** 2 * (outer**2 - inner**2)

    @property
    def _doped_radii(self) -> tuple[float, float]:
        """Outer and inner radius of the doped area in units of the core radius."""
        outer = self.core_diameter_um if self.doped_diameter_um is None else self.doped_diameter_um
        return outer / self.core_diameter_um, self.doped_inner_diameter_um / self.core_diameter_um

    def _guiding_v(self, wavelength_nm: ArrayLike) -> Array:
        v = self.v_number(wavelength_nm)
        if v.min() < _LEAST_V:
            raise ValueError(
                f"core_diameter_um = {self.core_diameter_um:g} µm with core_na = {self.core_na:g}: "
                f"V = {v.min():.2f} at the longest wavelength, allowed is at least {_LEAST_V}"
            )
        return v


def ytterbium_from_cladding_absorption(
    absorption_db_per_m: float,
    wavelength_nm: float,
    core_diameter_um: float,
    cladding_diameter_um: float,
    spectroscopy: Spectroscopy,
) -> float:
    """Return the ions per m³ of a fiber specified by its small-signal cladding absorption in dB/m.

    N = α ln(10)/10 / (Γ σa) with Γ the ratio of the areas of doped core and cladding.

    Raises:
        ValueError: The absorption is not positive, or the core is larger than its cladding.
    """
    require_positive("absorption_db_per_m", absorption_db_per_m, "dB/m", 1e3)
    require_positive("core_diameter_um", core_diameter_um, "µm", cladding_diameter_um)
    overlap = (core_diameter_um / cladding_diameter_um) ** 2
    nepers_per_m = absorption_db_per_m * np.log(10) / 10
    return float(nepers_per_m / (overlap * spectroscopy.absorption_m2(wavelength_nm)))
