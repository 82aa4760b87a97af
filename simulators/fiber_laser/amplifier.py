"""A fiber amplifier: fiber, pumps, signals, spontaneous emission; its steady state."""

import warnings
from dataclasses import dataclass, field

import numpy as np

from .amplifier_result import AmplifierResult
from .fiber import Fiber
from .light import AseBand, Pump, Reflector, Signal
from .propagation import Lines
from .quantities import PLANCK, SPEED_OF_LIGHT, Array, require_positive, require_within
from .spectroscopy import Spectroscopy
from .steady_state import solve_on_adapted_grid
from .ytterbium import ytterbium


class PhysicalWarning(UserWarning):
    """The numbers are right, but a device built so would misbehave."""


@dataclass(frozen=True)
class Amplifier:
    """An ytterbium-doped fiber amplifier in the steady state.

    Args:
        fiber: the fiber.
        pumps: pump light; at least one.
        signals: what is to be amplified.
        ase: bins of spontaneous emission; None leaves it out.
        reflectors: mirrors at the ends.
        spectroscopy: cross-sections and lifetime.
        ase_forward_in_w: power per bin that enters at z = 0 with the signal, in W, (bins,).
        ase_backward_in_w: the same at z = L.

    Raises:
        ValueError: no pump, an ASE input that does not fit the bins; and when solved, a wavelength
            that the spectroscopy does not cover, or a cladding pump in a fiber without cladding.

    Example::

        fiber = Fiber(1.5, 20, 0.08, 8e25, cladding_diameter_um=130)
        amplifier = Amplifier(fiber, (Pump(976, 150),), (Signal(1018, 10),))
        print(amplifier.solve().signal_out_w)
    """

    fiber: Fiber
    pumps: tuple[Pump, ...]
    signals: tuple[Signal, ...] = ()
    ase: AseBand | None = field(default_factory=AseBand)
    reflectors: tuple[Reflector, ...] = ()
    spectroscopy: Spectroscopy = field(default_factory=ytterbium)
    ase_forward_in_w: Array | None = None
    ase_backward_in_w: Array | None = None

    def __post_init__(self) -> None:
        for name in ("pumps", "signals", "reflectors"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.pumps:
            raise ValueError("pumps = (): an amplifier needs at least one Pump(wavelength, power)")
        bins = 0 if self.ase is None else self.ase.bins
        for name in ("ase_forward_in_w", "ase_backward_in_w"):
            given = getattr(self, name)
            if given is None:
                continue
            if np.shape(given) != (bins,) or not np.all(np.isfinite(given) & (given >= 0)):
                raise ValueError(
                    f"{name}: expected {bins} powers of at least 0 W, one a bin of `ase`, got "
                    f"shape {np.shape(given)}"
                )

    @property
    def wavelengths_nm(self) -> Array:
        """Wavelength of every line: signals, pumps, bins, (K,)."""
        single = [light.wavelength_nm for light in self._single]
        bins = np.zeros(0) if self.ase is None else self.ase.centres_nm
        return np.concatenate([single, bins])

    @property
    def photon_energies_j(self) -> Array:
        """Energy of a photon of every line in J, (K,)."""
        return PLANCK * SPEED_OF_LIGHT * 1e9 / self.wavelengths_nm

    def lines(self) -> Lines:
        """The amplifier as the solver sees it."""
        fiber, wavelength = self.fiber, self.wavelengths_nm
        signals, bins = len(self.signals), 0 if self.ase is None else self.ase.bins
        in_cladding = np.zeros(wavelength.size, dtype=bool)
        in_cladding[signals : wavelength.size - bins] = [p.path == "cladding" for p in self.pumps]
        overlap = fiber.core_overlap(wavelength)
        loss = np.full(wavelength.size, fiber.background_loss_per_m)
        if in_cladding.any():
            overlap[in_cladding] = fiber.cladding_overlap()
            if fiber.cladding_loss_per_m is not None:
                loss[in_cladding] = fiber.cladding_loss_per_m
        doped = overlap * fiber.ytterbium_per_m3
        emission = doped * self.spectroscopy.emission_m2(wavelength)
        spontaneous = np.zeros(wavelength.size)
        if self.ase is not None:
            spontaneous[-bins:] = emission[-bins:] * self.ase.polarisations * self.ase.widths_hz
        per_photon = 1 / self.photon_energies_j
        return Lines(
            absorption_per_m=doped * self.spectroscopy.absorption_m2(wavelength),
            emission_per_m=emission,
            loss_per_m=loss,
            spontaneous_per_m_s=spontaneous,
            forward_in_per_s=self._entering_w("forward") * per_photon,
            backward_in_per_s=self._entering_w("backward") * per_photon,
            reflectivity_at_start=self._reflectivity("start"),
            reflectivity_at_end=self._reflectivity("end"),
            saturation_per_m_s=fiber.core_area_m2
            * fiber.ytterbium_per_m3
            / self.spectroscopy.lifetime_s,
        )

    def solve(
        self, grid_tolerance: float = 1e-4, guess: AmplifierResult | None = None
    ) -> AmplifierResult:
        """The steady state.

        Args:
            grid_tolerance: largest estimated relative error of an output power from the grid.
            guess: the result of a similar amplifier, to begin with.

        Raises:
            ConvergenceError: no steady state was found to the tolerances.

        Warns:
            PhysicalWarning: as listed in the result's ``warnings``.
        """
        require_within("grid_tolerance", grid_tolerance, "", 1e-6, 0.1)
        start = guess.grid if guess is not None else None
        grid = solve_on_adapted_grid(self.lines(), self.fiber.length_m, grid_tolerance, start)
        result = AmplifierResult(self, grid)
        for text in result.warnings:
            warnings.warn(text, PhysicalWarning, stacklevel=2)
        return result

    @property
    def _single(self) -> tuple[Signal | Pump, ...]:
        """Lines of one wavelength, in their order."""
        return (*self.signals, *self.pumps)

    def _entering_w(self, direction: str) -> Array:
        single = [light.power_w if light.direction == direction else 0.0 for light in self._single]
        if self.ase is None:
            return np.array(single)
        carried = self.ase_forward_in_w if direction == "forward" else self.ase_backward_in_w
        return np.concatenate([single, np.zeros(self.ase.bins) if carried is None else carried])

    def _reflectivity(self, end: str) -> Array:
        wavelength = self.wavelengths_nm
        total = np.zeros(wavelength.size)
        for mirror in self.reflectors:
            if mirror.end == end:
                within = (wavelength >= mirror.from_nm) & (wavelength <= mirror.to_nm)
                total = np.where(within, np.maximum(total, mirror.reflectivity), total)
        return total


def quantum_limit_w(
    signal_in_w: float, pump_w: float, pump_wavelength_nm: float, signal_wavelength_nm: float
) -> float:
    """Most power in W that a signal can leave with: its input and a photon a pump photon."""
    require_within("signal_in_w", signal_in_w, "W", 0.0)
    require_within("pump_w", pump_w, "W", 0.0)
    require_positive("signal_wavelength_nm", signal_wavelength_nm, "nm")
    return signal_in_w + pump_w * pump_wavelength_nm / signal_wavelength_nm
