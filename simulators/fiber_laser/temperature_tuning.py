"""Temperature tuning of a DBR laser: range, linearity and mode hops."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .dbr_cavity import Cavity
from .quantities import Array, require_within


@dataclass(frozen=True)
class FiberMount:
    """Temperature dependence of the optical length of a fiber, bare or bonded to a mount.

    d ln(nL)/dT = α + ξ + κ (1 - p_e) (α_mount - α), the form of a bonded grating. Bare gratings
    shift by 5.2e-6 to 6.7e-6 per K, depending on the glass (Cosme et al., Accurate Determination
    of the Temperature Sensitivity of UV-Induced Fiber Bragg Gratings, measured from 1.5 to 1.6 µm);
    the defaults give 6.65e-6, and ξ = 8.6e-6, which is often quoted, 9.2e-6.

    Args:
        thermo_optic_per_k: Thermo-optic coefficient ξ = d ln n/dT in 1/K.
        mount_expansion_per_k: Expansion coefficient α_mount in 1/K.
        strain_transfer: Fraction κ of the mount's expansion transferred to the fiber; 0 is bare.
        quadratic_per_k2: Second-order coefficient b of ln(nL) in 1/K², about 25 °C.
        expansion_per_k: Expansion coefficient α of silica in 1/K.
        strain_optic: Effective strain-optic coefficient p_e.
    """

    thermo_optic_per_k: float = 6.1e-6
    mount_expansion_per_k: float = 0.55e-6
    strain_transfer: float = 0.0
    quadratic_per_k2: float = 0.0
    expansion_per_k: float = 0.55e-6
    strain_optic: float = 0.22

    def __post_init__(self) -> None:
        require_within("strain_transfer", self.strain_transfer, "", 0.0, 1.0)
        require_within("mount_expansion_per_k", self.mount_expansion_per_k, "1/K", -1e-5, 3e-4)
        require_within("thermo_optic_per_k", self.thermo_optic_per_k, "1/K", -1e-4, 1e-4)
        require_within("quadratic_per_k2", self.quadratic_per_k2, "1/K²", -1e-6, 1e-6)

    @property
    def per_k(self) -> float:
        """d ln(nL)/dT at 25 °C in 1/K."""
        strain = self.strain_transfer * (self.mount_expansion_per_k - self.expansion_per_k)
        return self.expansion_per_k + self.thermo_optic_per_k + (1 - self.strain_optic) * strain

    def factor(self, temperature_c: ArrayLike) -> Array:
        """Return the optical length at temperatures in °C relative to 25 °C."""
        change = np.asarray(temperature_c, dtype=float) - 25.0
        return np.exp(self.per_k * change + self.quadratic_per_k2 * change**2)


@dataclass(frozen=True, eq=False)
class TuningCurve:
    """Wavelength of the lowest-loss mode as a function of temperature.

    Args:
        temperature_c: Temperatures in °C, (n,).
        wavelength_nm: Wavelengths in nm, (n,).
        order: Order of the mode, (n,); a change is a mode hop.
    """

    temperature_c: Array
    wavelength_nm: Array
    order: Array

    @property
    def range_nm(self) -> float:
        """Longest minus shortest wavelength in nm."""
        return float(np.ptp(self.wavelength_nm))

    @property
    def slope_pm_per_k(self) -> float:
        """Slope of the linear fit in pm/K."""
        return float(1e3 * np.polyfit(self.temperature_c, self.wavelength_nm, 1)[0])

    @property
    def r_squared(self) -> float:
        """Coefficient of determination of the linear fit."""
        line = np.polyval(np.polyfit(self.temperature_c, self.wavelength_nm, 1), self.temperature_c)
        unexplained = ((self.wavelength_nm - line) ** 2).sum()
        return float(
            1 - unexplained / ((self.wavelength_nm - self.wavelength_nm.mean()) ** 2).sum()
        )

    @property
    def hops(self) -> Array:
        """Temperatures in °C after which the mode hops."""
        return self.temperature_c[:-1][np.diff(self.order) != 0]


def tuning_curve(
    cavity: Cavity,
    temperature_c: ArrayLike,
    grating_mount: FiberMount,
    cavity_mount: FiberMount | None = None,
) -> TuningCurve:
    """Compute the lowest-loss mode at each temperature.

    Args:
        cavity: The cavity at 25 °C.
        temperature_c: Increasing temperatures in °C.
        grating_mount: Mount of the gratings.
        cavity_mount: Mount of the fiber between the gratings; None: the mount of the gratings.
    """
    temperature = np.asarray(temperature_c, dtype=float)
    if temperature.ndim != 1 or temperature.size < 3 or (np.diff(temperature) <= 0).any():
        raise ValueError("temperature_c: expected at least three increasing temperatures in °C")
    factors = zip(
        grating_mount.factor(temperature),
        (cavity_mount or grating_mount).factor(temperature),
        strict=True,
    )
    lasing = [cavity.heated(*pair).modes()[0] for pair in factors]
    return TuningCurve(
        temperature,
        np.array([mode.wavelength_nm for mode in lasing]),
        np.array([mode.order for mode in lasing]),
    )


def largest_mismatch_per_k(cavity: Cavity, span_k: float) -> float:
    """Return the largest difference of d ln(nL)/dT of gratings and cavity without a hop, in 1/K.

    A mode at the centre of the gratings may drift by half a free spectral range relative to them
    over ``span_k``. Only the fiber between the gratings drifts, so its fraction of the effective
    length counts: Δ < FSR / (2 λ span) · L_eff / L.
    """
    relative = cavity.free_spectral_range_pm * 1e-3 / cavity.front.bragg_wavelength_nm
    return relative / (2 * span_k) * cavity.effective_length_mm / cavity.length_mm
