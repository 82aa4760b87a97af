"""Light in a fiber: signals, pumps, bins of spontaneous emission, and mirrors at the ends."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .quantities import (
    SPEED_OF_LIGHT,
    Array,
    require_choice,
    require_positive,
    require_within,
)

Direction = Literal["forward", "backward"]
_COINCIDENT_NM = 1e-9  # a reflector's edge this near to a bin's edge does not divide the bin


@dataclass(frozen=True)
class Signal:
    """Light of one wavelength in the core, too narrow to collect spontaneous emission.

    Args:
        wavelength_nm: Wavelength in nm.
        power_w: Input power in W; a forward signal enters at z = 0, a backward one at z = L.
        direction: ``forward`` or ``backward``.
        linewidth_hz: Linewidth (FWHM) in Hz, up to 1 THz; it raises the Brillouin threshold.
        mode: LP mode of the light. Two signals of one wavelength in different modes compete.
    """

    wavelength_nm: float
    power_w: float
    direction: Direction = "forward"
    linewidth_hz: float = 0.0
    mode: str = "LP01"

    def __post_init__(self) -> None:
        require_positive("wavelength_nm", self.wavelength_nm, "nm")
        require_within("power_w", self.power_w, "W", 0.0)
        require_choice("direction", self.direction, ("forward", "backward"))
        require_within("linewidth_hz", self.linewidth_hz, "Hz", 0.0, 1e12)


@dataclass(frozen=True)
class Pump:
    """Pump light.

    Args:
        wavelength_nm: Wavelength in nm.
        power_w: Launched power in W.
        direction: ``forward`` enters at z = 0, ``backward`` at z = L.
        path: ``cladding`` (uniform over core and cladding) or ``core`` (fundamental mode).
    """

    wavelength_nm: float
    power_w: float
    direction: Direction = "forward"
    path: Literal["cladding", "core"] = "cladding"

    def __post_init__(self) -> None:
        require_positive("wavelength_nm", self.wavelength_nm, "nm")
        require_within("power_w", self.power_w, "W", 0.0)
        require_choice("direction", self.direction, ("forward", "backward"))
        require_choice("path", self.path, ("cladding", "core"))


@dataclass(frozen=True)
class AseBand:
    """Bins of amplified spontaneous emission (ASE) in both directions, of equal width in nm.

    Args:
        from_nm: Lower edge of the first bin in nm.
        to_nm: Upper edge of the last bin in nm.
        bins: Number of bins.
        polarisations: Polarisation modes of the emission: 2, or 1 in a polarizing fiber.
    """

    from_nm: float = 985.0
    to_nm: float = 1085.0
    bins: int = 40
    polarisations: int = 2

    def __post_init__(self) -> None:
        require_positive("from_nm", self.from_nm, "nm")
        require_within("to_nm", self.to_nm, "nm", self.from_nm, open_low=True)
        require_within("bins", self.bins, "bins", 1, 10_000)
        require_within("polarisations", self.polarisations, "modes", 1, 2)
        if int(self.bins) != self.bins:
            raise ValueError(f"bins = {self.bins}: allowed is an integer")

    @property
    def edges_nm(self) -> Array:
        """Edges of the bins in nm, (bins + 1,)."""
        return np.linspace(self.from_nm, self.to_nm, self.bins + 1)

    @property
    def centres_nm(self) -> Array:
        """Centres of the bins in nm, (bins,)."""
        return (self.edges_nm[1:] + self.edges_nm[:-1]) / 2

    @property
    def widths_hz(self) -> Array:
        """Widths of the bins in Hz, (bins,); their sum is the width of the band."""
        return -SPEED_OF_LIGHT * 1e9 * np.diff(1 / self.edges_nm)

    @property
    def width_nm(self) -> float:
        """Width of a bin in nm."""
        return (self.to_nm - self.from_nm) / self.bins

    def split_at(self, wavelengths_nm: Iterable[float]) -> "AseBins":
        """Return the bins with further edges at the wavelengths within the band."""
        edges = self.edges_nm
        for wavelength in wavelengths_nm:
            near = np.abs(edges - wavelength).min() < _COINCIDENT_NM
            if self.from_nm < wavelength < self.to_nm and not near:
                edges = np.sort(np.append(edges, wavelength))
        return AseBins(edges, self.polarisations)


@dataclass(frozen=True, eq=False)
class AseBins:
    """The bins of an amplifier: those of its :class:`AseBand`, divided at the edges of reflectors.

    Args:
        edges_nm: Edges in nm, (bins + 1,).
        polarisations: Polarisation modes of the emission.
    """

    edges_nm: Array
    polarisations: int

    @property
    def count(self) -> int:
        """Number of bins."""
        return self.edges_nm.size - 1

    @property
    def centres_nm(self) -> Array:
        """Centres of the bins in nm, (bins,)."""
        return (self.edges_nm[1:] + self.edges_nm[:-1]) / 2

    @property
    def widths_nm(self) -> Array:
        """Widths of the bins in nm, (bins,)."""
        return np.diff(self.edges_nm)

    @property
    def widths_hz(self) -> Array:
        """Widths of the bins in Hz, (bins,)."""
        return -SPEED_OF_LIGHT * 1e9 * np.diff(1 / self.edges_nm)

    def merged(self, band: AseBand, power_w: Array) -> Array:
        """Return powers per bin as powers per bin of the undivided band in W, (band.bins,)."""
        parent = np.clip(np.searchsorted(band.edges_nm, self.centres_nm) - 1, 0, band.bins - 1)
        merged = np.bincount(parent, weights=power_w, minlength=band.bins)
        return np.asarray(merged, dtype=np.float64)

    def spread(self, band: AseBand, power_w: Array) -> Array:
        """Return powers per bin of the band in W as powers per bin, (bins,), at equal density."""
        parent = np.clip(np.searchsorted(band.edges_nm, self.centres_nm) - 1, 0, band.bins - 1)
        return np.asarray(power_w)[parent] * self.widths_nm / band.width_nm


@dataclass(frozen=True)
class Reflector:
    """A mirror at an end of the fiber.

    It acts on signals, pumps and ASE within its wavelengths. Bins are divided at its edges, so a
    grating narrower than a bin acts on its own part of the spectrum.

    Args:
        end: ``start`` (z = 0) or ``end`` (z = L).
        reflectivity: Reflected fraction of the power.
        from_nm: Shortest reflected wavelength in nm.
        to_nm: Longest reflected wavelength in nm.
    """

    end: Literal["start", "end"]
    reflectivity: float
    from_nm: float = 0.0
    to_nm: float = np.inf

    def __post_init__(self) -> None:
        require_choice("end", self.end, ("start", "end"))
        require_within("reflectivity", self.reflectivity, "", 0.0, 1.0)
        if not self.from_nm < self.to_nm:
            raise ValueError(f"to_nm = {self.to_nm:g} nm: allowed is more than {self.from_nm:g} nm")

    def reflects(self, wavelength_nm: Array) -> NDArray[np.bool_]:
        """Return which wavelengths in nm it reflects."""
        return (wavelength_nm >= self.from_nm) & (wavelength_nm <= self.to_nm)
