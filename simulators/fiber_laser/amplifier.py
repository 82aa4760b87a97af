"""A fiber amplifier: fiber, pumps, signals, spontaneous emission; its steady state."""

import warnings
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from .amplifier_result import AmplifierResult
from .fiber import Fiber
from .light import AseBand, AseBins, Pump, Reflector, Signal
from .propagation import Lines
from .quantities import PLANCK, SPEED_OF_LIGHT, Array, require_positive, require_within
from .self_heating import Cooling, solve_heated
from .spectroscopy import Spectroscopy
from .steady_state import solve_on_adapted_grid
from .ytterbium import ytterbium


class PhysicalWarning(UserWarning):
    """The result is correct, but a real device of this design would have a problem."""


@dataclass(frozen=True)
class Amplifier:
    """An ytterbium-doped fiber amplifier in the steady state.

    Args:
        fiber: The doped fiber.
        pumps: Pump light; at least one.
        signals: Light to amplify.
        ase: Bins of amplified spontaneous emission (ASE); None omits it.
        reflectors: Mirrors at the ends.
        spectroscopy: Cross-sections and lifetime.
        cooling: Cooling by which the fiber's heat sets its temperature along z, above that of the
            spectroscopy; None: the temperature of the spectroscopy everywhere.
        ase_forward_in_w: ASE power per bin that enters at z = 0, in W, (bins,).
        ase_backward_in_w: ASE power per bin that enters at z = L, in W, (bins,).

    Raises:
        ValueError: There is no pump, or an ASE input does not match the bins. When solved: the
            spectroscopy does not cover a wavelength, or a cladding pump has no cladding.

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
    cooling: Cooling | None = None

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
                    f"{name}: expected {bins} powers of at least 0 W, one per bin of `ase`, got "
                    f"shape {np.shape(given)}"
                )

        self._require_reflected_lines()

    @cached_property
    def ase_bins(self) -> AseBins | None:
        """The bins of ``ase``, divided at the edges of the reflectors."""
        if self.ase is None:
            return None
        return self.ase.split_at(
            edge for mirror in self.reflectors for edge in (mirror.from_nm, mirror.to_nm)
        )

    @cached_property
    def wavelengths_nm(self) -> Array:
        """Wavelength of each line in nm, in the order signals, pumps, bins, (K,)."""
        single = [light.wavelength_nm for light in self._single]
        bins = np.zeros(0) if self.ase_bins is None else self.ase_bins.centres_nm
        return np.concatenate([single, bins])

    @property
    def photon_energies_j(self) -> Array:
        """Photon energy of each line in J, (K,)."""
        return PLANCK * SPEED_OF_LIGHT * 1e9 / self.wavelengths_nm

    def lines(self, temperature_k: Array | None = None) -> Lines:
        """Return the amplifier as spectral lines for the solver.

        Args:
            temperature_k: Temperature of the core in each cell in K, (M,); None: that of the
                spectroscopy.
        """
        fiber, wavelength, spectrum = self.fiber, self.wavelengths_nm, self.ase_bins
        signals, bins = len(self.signals), 0 if spectrum is None else spectrum.count
        in_cladding = np.zeros(wavelength.size, dtype=bool)
        in_cladding[signals : wavelength.size - bins] = [p.path == "cladding" for p in self.pumps]
        overlap = fiber.core_overlap(wavelength)
        loss = fiber.background_loss_per_m + fiber.bend_loss_per_m(wavelength)
        for place, signal in enumerate(self.signals):
            if signal.mode != "LP01":
                at = signal.wavelength_nm
                overlap[place] = fiber.core_overlap(at, signal.mode)
                bend = float(fiber.bend_loss_per_m(at, signal.mode))
                loss[place] = fiber.background_loss_per_m + bend
        if in_cladding.any():
            overlap[in_cladding] = fiber.cladding_overlap()
            cladding_loss = fiber.cladding_loss_per_m
            loss[in_cladding] = (
                fiber.background_loss_per_m if cladding_loss is None else cladding_loss
            )
        doped = overlap * fiber.ytterbium_per_m3
        absorption, emission = doped * self._cross_sections_m2(temperature_k)
        spontaneous = np.zeros(emission.shape)
        if spectrum is not None:
            per_emission = spectrum.polarisations * spectrum.widths_hz
            spontaneous[..., -bins:] = emission[..., -bins:] * per_emission
        per_photon = 1 / self.photon_energies_j
        return Lines(
            absorption_per_m=absorption,
            emission_per_m=emission,
            loss_per_m=loss,
            spontaneous_per_m_s=spontaneous,
            forward_in_per_s=self._entering_w("forward") * per_photon,
            backward_in_per_s=self._entering_w("backward") * per_photon,
            reflectivity_at_start=self._reflectivity("start"),
            reflectivity_at_end=self._reflectivity("end"),
            saturation_per_m_s=fiber.doped_area_m2
            * fiber.ytterbium_per_m3
            / self.spectroscopy.lifetime_s,
        )

    def solve(
        self, grid_tolerance: float = 1e-4, guess: AmplifierResult | None = None
    ) -> AmplifierResult:
        """Compute the steady state.

        Args:
            grid_tolerance: Largest estimated relative error of an output power due to the grid.
            guess: Result of a similar amplifier as the initial guess.

        Raises:
            ConvergenceError: No steady state was found within the tolerances, or the core becomes
                too hot for the cross-sections.

        Warns:
            PhysicalWarning: One for each of the result's ``warnings``.
        """
        require_within("grid_tolerance", grid_tolerance, "", 1e-6, 0.1)
        if self.cooling is not None:
            result = solve_heated(self, grid_tolerance, guess)
        else:
            start = guess.grid if guess is not None else None
            grid = solve_on_adapted_grid(self.lines(), self.fiber.length_m, grid_tolerance, start)
            result = AmplifierResult(self, grid)
        for text in result.warnings:
            warnings.warn(text, PhysicalWarning, stacklevel=2)
        return result

    def _cross_sections_m2(self, temperature_k: Array | None) -> Array:
        """Return absorption and emission of each line, (2, K), or (2, M, K) for M temperatures."""
        wavelength = self.wavelengths_nm

        def both(glass: Spectroscopy) -> Array:
            return np.array([glass.absorption_m2(wavelength), glass.emission_m2(wavelength)])

        if temperature_k is None:
            return both(self.spectroscopy)
        return np.moveaxis(self.spectroscopy.along(temperature_k, both), 0, 1)

    @property
    def _single(self) -> tuple[Signal | Pump, ...]:
        """Signals and pumps, in the order of the lines."""
        return (*self.signals, *self.pumps)

    def _entering_w(self, direction: str) -> Array:
        single = [light.power_w if light.direction == direction else 0.0 for light in self._single]
        if self.ase is None or self.ase_bins is None:
            return np.array(single)
        carried = self.ase_forward_in_w if direction == "forward" else self.ase_backward_in_w
        if carried is None:
            carried = np.zeros(self.ase_bins.count)
        elif self.ase_bins.count != self.ase.bins:
            carried = self.ase_bins.spread(self.ase, carried)
        return np.concatenate([single, carried])

    def _reflectivity(self, end: str) -> Array:
        wavelength = self.wavelengths_nm
        total = np.zeros(wavelength.size)
        for mirror in self.reflectors:
            if mirror.end == end:
                within = mirror.reflects(wavelength)
                total = np.where(within, np.maximum(total, mirror.reflectivity), total)
        return total

    def _require_reflected_lines(self) -> None:
        for place, mirror in enumerate(self.reflectors):
            if not mirror.reflects(self.wavelengths_nm).any():
                band = "None" if self.ase is None else f"{self.ase.from_nm:g} to {self.ase.to_nm:g}"
                raise ValueError(
                    f"reflectors[{place}]: no signal, pump or ASE bin lies from "
                    f"{mirror.from_nm:g} to {mirror.to_nm:g} nm, so the reflector has no effect; "
                    f"include these wavelengths in the bins of `ase` ({band} nm)"
                )


def quantum_limit_w(
    signal_in_w: float, pump_w: float, pump_wavelength_nm: float, signal_wavelength_nm: float
) -> float:
    """Return the largest output in W: the input plus one signal photon per pump photon."""
    require_within("signal_in_w", signal_in_w, "W", 0.0)
    require_within("pump_w", pump_w, "W", 0.0)
    require_positive("signal_wavelength_nm", signal_wavelength_nm, "nm")
    return signal_in_w + pump_w * pump_wavelength_nm / signal_wavelength_nm
