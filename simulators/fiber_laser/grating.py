"""A uniform fiber Bragg grating by coupled-mode theory."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_plugins.simulators.fiber_laser.checks import require_positive, require_within
from lightning_plugins.simulators.fiber_laser.spectroscopy import Array


@dataclass(frozen=True)
class Grating:
    """A uniform Bragg grating.

    Args:
        bragg_wavelength_nm: centre of the reflection in nm, in vacuum.
        length_mm: length in mm.
        peak_reflectivity: share of the power reflected at the centre, tanh²(κL).
        refractive_index: effective index of the mode.

    Raises:
        ValueError: a reflectivity outside (0, 1), a length or wavelength that cannot be.
    """

    bragg_wavelength_nm: float
    length_mm: float
    peak_reflectivity: float
    refractive_index: float = 1.45

    def __post_init__(self) -> None:
        require_positive("bragg_wavelength_nm", self.bragg_wavelength_nm, "nm")
        require_positive("length_mm", self.length_mm, "mm", 1000)
        require_positive("peak_reflectivity", self.peak_reflectivity, "", 1 - 1e-12)
        require_within("refractive_index", self.refractive_index, "", 1.0, 4.0)

    @property
    def coupling_per_m(self) -> float:
        """κ in 1/m."""
        return float(np.arctanh(np.sqrt(self.peak_reflectivity)) / (self.length_mm * 1e-3))

    @property
    def penetration_mm(self) -> float:
        """Length of the mirror that would delay light as the grating does, tanh(κL)/(2κ), in mm."""
        kappa = self.coupling_per_m
        return float(1e3 * np.tanh(kappa * self.length_mm * 1e-3) / (2 * kappa))

    def amplitude(self, wavelength_nm: ArrayLike) -> NDArray[np.complex128]:
        """Complex reflection at the face, r = -κ sinh(sL) / (δ sinh(sL) + i s cosh(sL)).

        s² = κ² - δ² and δ = 2π n (1/λ - 1/λ_Bragg), so that at the centre r = i tanh(κL) (Erdogan,
        J. Lightwave Technol. 15, 1277 (1997), Eq. 16, without its phase of propagation).
        """
        wavelength = np.asarray(wavelength_nm, dtype=float)
        kappa, length = self.coupling_per_m, self.length_mm * 1e-3
        mismatch = 1e9 * (1 / wavelength - 1 / self.bragg_wavelength_nm)
        detuning = 2 * np.pi * self.refractive_index * mismatch
        s = np.sqrt((kappa**2 - detuning**2).astype(complex))
        small = np.abs(s * length) < 1e-6
        sinh_over_s = np.where(small, length, np.sinh(s * length) / np.where(small, 1, s))
        denominator = detuning * sinh_over_s + 1j * np.cosh(s * length)
        return np.asarray(-kappa * sinh_over_s / denominator, dtype=complex)

    def reflectivity(self, wavelength_nm: ArrayLike) -> Array:
        """Reflected share of the power at wavelengths in nm."""
        return np.abs(self.amplitude(wavelength_nm)) ** 2

    @property
    def bandwidth_pm(self) -> float:
        """Distance of the first zeros on either side of the centre, in pm.

        δ = √(κ² + π²/L²) there.
        """
        length = self.length_mm * 1e-3
        detuning = np.hypot(self.coupling_per_m, np.pi / length)
        mismatch = detuning / (2 * np.pi * self.refractive_index)
        return float(2e12 * mismatch * (self.bragg_wavelength_nm * 1e-9) ** 2)
