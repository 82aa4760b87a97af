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
        bragg_wavelength_nm: Centre wavelength in vacuum in nm.
        length_mm: Length in mm.
        peak_reflectivity: Reflected fraction of the power at the centre, tanh²(κL).
        refractive_index: Effective index of the mode.

    Raises:
        ValueError: The reflectivity is outside (0, 1), or a length or wavelength is invalid.
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
        """Penetration depth, the distance to a mirror of equal delay, tanh(κL)/(2κ), in mm."""
        kappa = self.coupling_per_m
        return float(1e3 * np.tanh(kappa * self.length_mm * 1e-3) / (2 * kappa))

    def amplitude(self, wavelength_nm: ArrayLike) -> NDArray[np.complex128]:
        """Return the complex reflection at the face, r = -κ sinh(sL) / (δ sinh(sL) + i s cosh(sL)).

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
        """Return the reflected fraction of the power at wavelengths in nm."""
        return np.abs(self.amplitude(wavelength_nm)) ** 2

    @property
    def bandwidth_pm(self) -> float:
        """Distance in pm between the first zeros on both sides, where δ = √(κ² + π²/L²)."""
        length = self.length_mm * 1e-3
        detuning = np.hypot(self.coupling_per_m, np.pi / length)
        mismatch = detuning / (2 * np.pi * self.refractive_index)
        return float(2e12 * mismatch * (self.bragg_wavelength_nm * 1e-9) ** 2)


@dataclass(frozen=True)
class Mode:
    """A longitudinal mode of a cavity.

    Args:
        order: Number of wavelengths in a round trip, with the phases of the gratings.
        wavelength_nm: Wavelength in vacuum in nm.
        loss_nepers: Power loss of half a round trip, -ln(R1 R2)/2 + l L, which equals the gain
            at threshold.
    """

    order: int
    wavelength_nm: float
    loss_nepers: float


@dataclass(frozen=True)
class Cavity:
    """A distributed Bragg reflector (DBR) cavity: two gratings and the fiber between them.

    Args:
        back: The grating of high reflectivity.
        front: The output coupler.
        length_mm: Length of the fiber between the gratings in mm.
        loss_per_m: Background loss in 1/m.
        optical_length_factor: Optical length of that fiber relative to the reference temperature.

    Raises:
        ValueError: A length or loss is invalid.
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
        """Length between the gratings plus the penetration depths of both, in mm."""
        return self.length_mm + self.back.penetration_mm + self.front.penetration_mm

    @property
    def free_spectral_range_hz(self) -> float:
        """c / (2 n L_eff), the spacing of modes near the centre of the gratings."""
        index = self.front.refractive_index
        return SPEED_OF_LIGHT / (2 * index * self.effective_length_mm * 1e-3)

    @property
    def free_spectral_range_pm(self) -> float:
        """The free spectral range in wavelength, in pm."""
        wavelength_m = self.front.bragg_wavelength_nm * 1e-9
        return 1e12 * self.free_spectral_range_hz * wavelength_m**2 / SPEED_OF_LIGHT

    def round_trip_phase(self, wavelength_nm: Array) -> Array:
        """Return the round-trip phase in rad, unwrapped over sorted wavelengths."""
        index = self.front.refractive_index * self.optical_length_factor
        path_nm = 2 * index * self.length_mm * 1e6
        gratings = self.back.amplitude(wavelength_nm) * self.front.amplitude(wavelength_nm)
        return 2 * np.pi * path_nm / wavelength_nm + np.unwrap(np.angle(gratings))

    def modes(self, within_pm: float | None = None) -> list[Mode]:
        """Return the modes near the centre of the output coupler, sorted by loss.

        At a mode the round-trip phase, with the gratings, is a multiple of 2π.

        Args:
            within_pm: Half width of the searched band in pm; default: the bandwidth of the wider
                grating.
        """
        centre = self.front.bragg_wavelength_nm
        half_nm = 1e-3 * (within_pm or max(self.back.bandwidth_pm, self.front.bandwidth_pm))
        wavelength = np.linspace(centre - half_nm, centre + half_nm, _SAMPLES)
        turns = self.round_trip_phase(wavelength) / (2 * np.pi)
        first, last = np.ceil(turns.min()), np.floor(turns.max())
        orders = np.arange(first, last + 1)
        # The phase decreases with wavelength; interpolation requires increasing values.
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
        """Return the threshold difference of the two lowest-loss modes in nepers.

        The laser stays in one mode if this exceeds the extra gain that spatial hole burning leaves
        for the second mode.
        """
        modes = self.modes()
        if len(modes) < 2:
            return float("inf")
        return modes[1].loss_nepers - modes[0].loss_nepers

    def heated(self, grating_factor: float, length_factor: float) -> "Cavity":
        """Return a copy with scaled Bragg wavelengths and optical length."""
        back, front = (
            replace(grating, bragg_wavelength_nm=grating.bragg_wavelength_nm * grating_factor)
            for grating in (self.back, self.front)
        )
        factor = self.optical_length_factor * length_factor
        return replace(self, back=back, front=front, optical_length_factor=factor)
