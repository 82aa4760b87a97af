"""The result of an amplifier in the steady state: powers, spectra, heat and numerical errors."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .fiber import LEAST_YTTERBIUM_PER_M3
from .light import Direction
from .propagation import Lines
from .quantities import Array, require_positive
from .spectroscopy import Spectroscopy
from .steady_state import GridSolution

if TYPE_CHECKING:
    from .amplifier import Amplifier

_PARASITIC_GAIN_DB = 30.0
_NEARLY_LASING = 0.9
_LASING = 0.999  # round-trip gain above which a bin is a laser line


@dataclass(frozen=True, eq=False)
class AmplifierResult:
    """A converged steady state. No result exists for an unconverged one.

    Args:
        amplifier: The amplifier that was solved.
        grid: The solution on its grid, with iterations and errors.
        heating_k: Temperature of the core above the surroundings in each cell in K, (M,), as the
            amplifier's ``cooling`` sets it; None without cooling.
    """

    amplifier: "Amplifier"
    grid: GridSolution
    heating_k: Array | None = None

    converged = True

    @property
    def photon_balance(self) -> float:
        """Relative error of the photon balance; at most 1e-9."""
        return self.grid.solution.photon_balance

    @property
    def grid_error(self) -> float:
        """Largest estimated relative error of an output power due to the grid."""
        return self.grid.grid_error

    @property
    def edges_m(self) -> Array:
        """Edges of the cells along the fiber in m, (M + 1,)."""
        return self.grid.edges_m

    @property
    def excitation(self) -> Array:
        """Fraction of excited ions in each cell, (M,)."""
        return self.grid.solution.propagation.excitation

    @cached_property
    def forward_w(self) -> Array:
        """Forward power of each line (signals, pumps, bins) at the edges in W, (M + 1, K)."""
        return self.grid.solution.propagation.forward * self._w_per_flux

    @cached_property
    def backward_w(self) -> Array:
        """Backward power of each line at the edges in W, (M + 1, K)."""
        return self.grid.solution.propagation.backward * self._w_per_flux

    @property
    def signals_out_w(self) -> Array:
        """Output power of each signal in W."""
        return self._out_w(0, self.amplifier.signals)

    @property
    def signal_out_w(self) -> float:
        """Output power of the first signal in W."""
        if not self.amplifier.signals:
            raise ValueError("signals = (): the amplifier has no signal")
        return float(self.signals_out_w[0])

    @cached_property
    def laser_bins(self) -> NDArray[np.int_]:
        """Bins that lase between the reflectors: their round-trip gain is above 0.999."""
        propagation = self.grid.solution.propagation
        lases = propagation.lines.circulates & (propagation.round_trip > _LASING)
        return np.flatnonzero(lases[self._first_bin :])

    def laser_out_w(self, direction: Direction = "forward") -> float:
        """Return the output power of all laser lines in a direction in W; 0 below threshold."""
        if not self.laser_bins.size:
            return 0.0
        return float(self.ase_out_w(direction)[self.laser_bins].sum())

    @property
    def laser_wavelength_nm(self) -> float:
        """Centre of the strongest laser line in nm.

        Raises:
            ValueError: The amplifier does not lase.
        """
        return float(self.amplifier.wavelengths_nm[self._laser_line])

    @property
    def round_trip_gain(self) -> float:
        """Largest round-trip power gain of a line between the reflectors; 1 when it lases."""
        return float(self.grid.solution.propagation.round_trip.max())

    @property
    def output_w(self) -> float:
        """Output power in W: of the first signal, or of an oscillator's laser lines at z = L."""
        return self.signal_out_w if self.amplifier.signals else self.laser_out_w("forward")

    @property
    def main_line(self) -> int:
        """Index of the line with the output power: the first signal, or the strongest laser line.

        Raises:
            ValueError: There is no signal and the amplifier does not lase.
        """
        return 0 if self.amplifier.signals else self._laser_line

    @property
    def _laser_line(self) -> int:
        if not self.laser_bins.size:
            raise ValueError("reflectors: no line lases between them; the output is ASE")
        powers = (self.ase_out_w("forward") + self.ase_out_w("backward"))[self.laser_bins]
        return int(self._first_bin + self.laser_bins[np.argmax(powers)])

    @property
    def gain_db(self) -> float:
        """Gain of the first signal in dB."""
        return float(10 * np.log10(self.signal_out_w / self.amplifier.signals[0].power_w))

    @property
    def pumps_left_w(self) -> Array:
        """Residual power of each pump at the far end in W."""
        return self._out_w(len(self.amplifier.signals), self.amplifier.pumps)

    @property
    def pump_absorbed_w(self) -> float:
        """Launched pump minus the pump that leaves at both ends, in W, of all pumps.

        A reflected pump leaves where it entered.
        """
        launched = sum(pump.power_w for pump in self.amplifier.pumps)
        lines, first = self.grid.solution.propagation.lines, len(self.amplifier.signals)
        leaves_w = self.forward_w[-1] * (1 - lines.reflectivity_at_end)
        leaves_w = leaves_w + self.backward_w[0] * (1 - lines.reflectivity_at_start)
        return float(launched - leaves_w[first : first + len(self.amplifier.pumps)].sum())

    def ase_out_w(self, direction: Direction = "forward") -> Array:
        """Return the ASE power per bin that leaves in a direction, in W, (bins,)."""
        mirrors, first = self.grid.solution.propagation.lines, self._first_bin
        if direction == "forward":
            return (self.forward_w[-1] * (1 - mirrors.reflectivity_at_end))[first:]
        return (self.backward_w[0] * (1 - mirrors.reflectivity_at_start))[first:]

    def ase_suppression_db(self, resolution_nm: float = 0.02) -> float:
        """Return the ratio of the first signal to the strongest co-propagating ASE in dB.

        The ASE is counted within ``resolution_nm``, as by an optical spectrum analyser of that
        resolution. Half the resolution increases the ratio by 3 dB.
        """
        require_positive("resolution_nm", resolution_nm, "nm", 100.0)
        bins = self.amplifier.ase_bins
        if bins is None:
            raise ValueError("ase = None: the ASE suppression requires an AseBand")
        signal_w = self.signal_out_w
        density = self.ase_out_w(self.amplifier.signals[0].direction) / bins.widths_nm
        strongest = density.max() * resolution_nm
        return float(10 * np.log10(signal_w / strongest))

    @cached_property
    def heat_w_per_m(self) -> Array:
        """Heat in each cell in W/m, (M,): lost light minus escaped fluorescence.

        Background loss counts as heat although a part of it is scattered light, so this is an upper
        bound.
        """
        propagation = self.grid.solution.propagation
        h = propagation.widths_m
        vanished = -np.diff(self.forward_w - self.backward_w, axis=0).sum(1) / h
        lines = propagation.lines
        captured = 2 * lines.spontaneous_per_m_s.sum(-1) * self.excitation
        escaped = lines.saturation_per_m_s * self.excitation - captured
        return vanished - escaped * self.of_glass(lambda glass: glass.mean_fluorescence_photon_j)

    @property
    def heat_w(self) -> float:
        """Heat of the fiber in W."""
        return float(self.heat_w_per_m @ self.grid.solution.propagation.widths_m)

    def of_glass(self, quantity: Callable[[Spectroscopy], ArrayLike]) -> Array:
        """Return a quantity of the glass at the temperature of each cell, (M, ...) or (...)."""
        glass = self.amplifier.spectroscopy
        if self.heating_k is None:
            return np.asarray(quantity(glass))
        return glass.along(glass.temperature_k + self.heating_k, quantity)

    def lines_of(self, amplifier: "Amplifier") -> Lines:
        """Return the lines of an amplifier with other inputs at the temperatures of this result."""
        heating = self.heating_k
        return amplifier.lines(
            None if heating is None else amplifier.spectroscopy.temperature_k + heating
        )

    @property
    def effective_length_m(self) -> float:
        """∫ P dz / P_out of the main line in m: the effective length for nonlinear effects."""
        return float(np.trapezoid(self.main_power_w, self.edges_m) / self.output_w)

    @property
    def main_power_w(self) -> Array:
        """Power of the main line in its direction at the edges in W, (M + 1,)."""
        signals = self.amplifier.signals
        backward = bool(signals) and signals[0].direction == "backward"
        return (self.backward_w if backward else self.forward_w)[:, self.main_line]

    @property
    def main_wavelength_nm(self) -> float:
        """Wavelength of the main line in nm."""
        return float(self.amplifier.wavelengths_nm[self.main_line])

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """Problems that a real device would have, one sentence each."""
        amplifier, propagation = self.amplifier, self.grid.solution.propagation
        found = []
        gain_db = 10 / np.log(10) * propagation.nepers.sum(0)
        best = int(np.argmax(gain_db))
        wavelength = amplifier.wavelengths_nm[best]
        if gain_db[best] > _PARASITIC_GAIN_DB:
            found.append(
                f"parasitic lasing: the single-pass gain at {wavelength:.0f} nm is "
                f"{gain_db[best]:.0f} dB, so reflections of {-gain_db[best]:.0f} dB at both ends "
                "reach the lasing threshold; shorten the fiber or reduce the pump"
            )
        closest = int(np.argmax(propagation.round_trip))
        if amplifier.signals and propagation.round_trip[closest] > _NEARLY_LASING:
            found.append(
                f"lasing: between the given reflectors the round trip at "
                f"{amplifier.wavelengths_nm[closest]:.0f} nm returns "
                f"{propagation.round_trip[closest]:.4f} of the light"
            )
        is_oscillator = not amplifier.signals and propagation.lines.circulates.any()
        if is_oscillator and not self.laser_bins.size:
            found.append(
                f"below threshold: the largest round-trip gain is {self.round_trip_gain:.3g} "
                f"at {amplifier.wavelengths_nm[closest]:.0f} nm; the output is ASE"
            )
        density = amplifier.fiber.ytterbium_per_m3
        if density < LEAST_YTTERBIUM_PER_M3:
            found.append(
                f"doping: ytterbium_per_m3 = {density:g} 1/m³ is far below the 1e24 to 1e27 1/m³ "
                f"of ytterbium fibers; {density:g} 1/cm³ would be {density * 1e6:g} 1/m³"
            )
        if sum(pump.power_w for pump in amplifier.pumps) == 0:
            found.append("the pump power is 0 W: the fiber only absorbs")
        return tuple(found)

    def summary(self) -> dict[str, float]:
        """Return the main figures; each name contains the unit."""
        figures = {
            "pump_launched_w": float(sum(pump.power_w for pump in self.amplifier.pumps)),
            "pump_absorbed_w": self.pump_absorbed_w,
        }
        if self.amplifier.signals:
            figures["signal_out_w"] = self.signal_out_w
            if self.amplifier.signals[0].power_w > 0:
                figures["gain_db"] = self.gain_db
        if self.grid.solution.propagation.lines.circulates.any():
            figures["round_trip_gain"] = self.round_trip_gain
            figures["laser_forward_w"] = self.laser_out_w("forward")
            figures["laser_backward_w"] = self.laser_out_w("backward")
            if self.laser_bins.size:
                figures["laser_wavelength_nm"] = self.laser_wavelength_nm
        if self.amplifier.ase is not None:
            figures["ase_forward_w"] = float(self.ase_out_w("forward").sum())
            figures["ase_backward_w"] = float(self.ase_out_w("backward").sum())
        figures["heat_w"] = self.heat_w
        if self.heating_k is not None:
            figures["hottest_core_k"] = float(self.heating_k.max())
        figures["peak_heat_w_per_m"] = float(self.heat_w_per_m.max())
        figures["mean_excitation"] = float(
            np.average(self.excitation, weights=np.diff(self.edges_m))
        )
        figures["photon_balance"] = self.photon_balance
        figures["grid_error"] = self.grid_error
        return figures

    @property
    def _w_per_flux(self) -> Array:
        lines = self.grid.solution.propagation.lines
        return self.amplifier.photon_energies_j * lines.saturation_per_m_s

    @property
    def _first_bin(self) -> int:
        return len(self.amplifier.signals) + len(self.amplifier.pumps)

    def _out_w(self, first: int, lights: tuple) -> Array:
        mirrors = self.grid.solution.propagation.lines
        forward = self.forward_w[-1] * (1 - mirrors.reflectivity_at_end)
        backward = self.backward_w[0] * (1 - mirrors.reflectivity_at_start)
        return np.array(
            [
                (forward if light.direction == "forward" else backward)[first + place]
                for place, light in enumerate(lights)
            ]
        )
