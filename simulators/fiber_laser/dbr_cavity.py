"""Fiber Bragg gratings by coupled-mode theory, and the longitudinal modes between two of them."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .quantities import SPEED_OF_LIGHT, Array, require_positive, require_within

_SAMPLES = 1201


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


@dataclass(frozen=True)
class Mode:
    """A longitudinal mode of a cavity.

    Args:
        order: number of wavelengths in a round trip, the phases of the gratings included.
        wavelength_nm: in vacuum.
        loss_nepers: what the field loses in power in half a round trip, -ln(R1 R2)/2 + l L; the
            gain that it needs to oscillate.
    """

    order: int
    wavelength_nm: float
    loss_nepers: float


@dataclass(frozen=True)
class Cavity:
    """A distributed Bragg reflector (DBR) cavity: two gratings and the fiber between them.

    Args:
        back: the grating of high reflectivity.
        front: the output coupler.
        length_mm: fiber between the gratings.
        loss_per_m: background loss in 1/m.
        optical_length_factor: scales the optical length of that fiber, 1 at the reference; heat
            changes it.

    Raises:
        ValueError: a length or loss that cannot be.
    """

    back: Grating
    front: Grating
    length_mm: float
    loss_per_m: float = 0.0
    optical_length_factor: float = 1.0

    def __post_init__(self) -> None:
        require_positive("length_mm", self.length_mm, "mm", 1e4)
        require_within("loss_per_m", self.loss_per_m, "1/m", 0.0, 100.0)
        require_within("optical_length_factor", self.optical_length_factor, "", 0.9, 1.1)

    @property
    def effective_length_mm(self) -> float:
        """Fiber between the gratings and the penetration into both, in mm."""
        return self.length_mm + self.back.penetration_mm + self.front.penetration_mm

    @property
    def free_spectral_range_hz(self) -> float:
        """c / (2 n L_eff), the distance of modes near the centre of the gratings."""
        index = self.front.refractive_index
        return SPEED_OF_LIGHT / (2 * index * self.effective_length_mm * 1e-3)

    @property
    def free_spectral_range_pm(self) -> float:
        """The same in wavelength, in pm."""
        wavelength_m = self.front.bragg_wavelength_nm * 1e-9
        return 1e12 * self.free_spectral_range_hz * wavelength_m**2 / SPEED_OF_LIGHT

    def round_trip_phase(self, wavelength_nm: Array) -> Array:
        """Phase of a round trip in rad, unwrapped over sorted wavelengths."""
        index = self.front.refractive_index * self.optical_length_factor
        path_nm = 2 * index * self.length_mm * 1e6
        gratings = self.back.amplitude(wavelength_nm) * self.front.amplitude(wavelength_nm)
        return 2 * np.pi * path_nm / wavelength_nm + np.unwrap(np.angle(gratings))

    def modes(self, within_pm: float | None = None) -> list[Mode]:
        """The modes around the output coupler's centre, the one of least loss first.

        Each solves: the phase of a round trip, gratings included, is a multiple of 2π.

        Args:
            within_pm: half width of the band searched; default: the wider grating's bandwidth.
        """
        centre = self.front.bragg_wavelength_nm
        half_nm = 1e-3 * (within_pm or max(self.back.bandwidth_pm, self.front.bandwidth_pm))
        wavelength = np.linspace(centre - half_nm, centre + half_nm, _SAMPLES)
        turns = self.round_trip_phase(wavelength) / (2 * np.pi)
        first, last = np.ceil(turns.min()), np.floor(turns.max())
        orders = np.arange(first, last + 1)
        # The phase falls with wavelength; interpolate it the other way round.
        found = np.interp(orders, turns[::-1], wavelength[::-1])
        reflected = self.back.reflectivity(found) * self.front.reflectivity(found)
        losses = -np.log(np.maximum(reflected, 1e-300)) / 2
        losses = losses + self.loss_per_m * self.length_mm * 1e-3
        modes = [
            Mode(int(order), float(at), float(loss))
            for order, at, loss in zip(orders, found, losses, strict=True)
        ]
        return sorted(modes, key=lambda mode: mode.loss_nepers)

    def threshold_gap(self) -> float:
        """Gain in nepers that the second mode lacks when the first oscillates.

        Positive always; with homogeneous gain the laser runs on one mode if it exceeds what
        spatial hole burning leaves to the second.
        """
        modes = self.modes()
        if len(modes) < 2:
            return float("inf")
        return modes[1].loss_nepers - modes[0].loss_nepers

    def heated(self, grating_factor: float, length_factor: float) -> "Cavity":
        """With the gratings' wavelengths and the optical length between them scaled."""
        back, front = (
            replace(grating, bragg_wavelength_nm=grating.bragg_wavelength_nm * grating_factor)
            for grating in (self.back, self.front)
        )
        factor = self.optical_length_factor * length_factor
        return replace(self, back=back, front=front, optical_length_factor=factor)
