"""A distributed Bragg reflector (DBR) fiber laser: threshold, power, and its quantum linewidth."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from scipy.optimize import brentq  # type: ignore[import-untyped]

from .amplifier import Amplifier
from .dbr_cavity import Cavity, Mode
from .fiber import Fiber
from .light import Pump, Signal
from .propagation import Propagation
from .quantities import PLANCK, SPEED_OF_LIGHT, Array, require_positive
from .spectroscopy import Spectroscopy
from .steady_state import solve
from .ytterbium import ytterbium

_CELLS = 48
_FAINTEST_W = 1e-12


@dataclass(frozen=True)
class DbrResult:
    """A DBR laser in the steady state.

    Args:
        mode: The lasing mode.
        output_w: Power through the output coupler in W; 0 below threshold.
        back_w: Power through the back grating in W.
        pump_absorbed_w: Absorbed pump power in W.
        mean_excitation: Fraction of excited ions, averaged over the length.
        threshold_excitation: Mean fraction at which gain equals loss.
        quantum_linewidth_hz: Schawlow-Townes linewidth (FWHM) in Hz; infinite below threshold.
    """

    mode: Mode
    output_w: float
    back_w: float
    pump_absorbed_w: float
    mean_excitation: float
    threshold_excitation: float
    quantum_linewidth_hz: float


@dataclass(frozen=True)
class DbrLaser:
    """A short doped fiber between two Bragg gratings, pumped through its core.

    Only the mode of lowest loss oscillates. The powers of both directions are added, so spatial
    hole burning is not modelled. Spontaneous emission is not modelled either.

    Args:
        cavity: The gratings and the fiber between them.
        core_diameter_um: Diameter of the doped core in µm.
        core_na: Numerical aperture of the core.
        ytterbium_per_m3: Ytterbium ions per m³.
        pump_wavelength_nm: Pump wavelength in nm.
        pump_power_w: Pump power launched through the back grating in W.
        spectroscopy: Cross-sections and lifetime.

    Raises:
        ValueError: The doping, geometry or power is invalid.
    """

    cavity: Cavity
    core_diameter_um: float
    core_na: float
    ytterbium_per_m3: float
    pump_wavelength_nm: float = 976.0
    pump_power_w: float = 0.3
    spectroscopy: Spectroscopy = field(default_factory=ytterbium)

    def __post_init__(self) -> None:
        require_positive("pump_power_w", self.pump_power_w, "W")
        self.fiber  # noqa: B018 - validates the fiber

    @cached_property
    def mode(self) -> Mode:
        """The mode of lowest loss."""
        return self.cavity.modes()[0]

    @property
    def fiber(self) -> Fiber:
        """The doped fiber between the gratings."""
        return Fiber(
            length_m=self.cavity.length_mm * 1e-3,
            core_diameter_um=self.core_diameter_um,
            core_na=self.core_na,
            ytterbium_per_m3=self.ytterbium_per_m3,
            background_loss_per_m=self.cavity.loss_per_m,
        )

    def threshold_excitation(self) -> float:
        """Return the mean fraction of excited ions at which the gain equals the loss.

        Γ N [x (σe + σa) - σa] L = -ln(R1 R2)/2 + l L. Above 1 the cavity cannot lase; a pump at
        976 nm excites at most about half of the ions.
        """
        glass, wavelength = self.spectroscopy, self.mode.wavelength_nm
        doped = float(self.fiber.core_overlap(wavelength)) * self.ytterbium_per_m3
        absorption = float(glass.absorption_m2(wavelength))
        emission = float(glass.emission_m2(wavelength))
        needed = self.mode.loss_nepers / (doped * self.cavity.length_mm * 1e-3)
        return (needed + absorption) / (absorption + emission)

    def threshold_pump_w(self, most_w: float = 10.0) -> float:
        """Return the threshold pump power in W; infinite if it exceeds ``most_w``."""

        def excess(log_pump: float) -> float:
            laser = replace(self, pump_power_w=float(np.exp(log_pump)))
            return float(np.log(laser._round_trip(_FAINTEST_W)[0]))

        if excess(np.log(most_w)) < 0:
            return float("inf")
        return float(np.exp(brentq(excess, np.log(1e-6), np.log(most_w), xtol=1e-10)))

    @cached_property
    def steady_state(self) -> DbrResult:
        """The cached result of :meth:`solve`."""
        return self.solve()

    def solve(self) -> DbrResult:
        """Find the power at which the round-trip gain is 1."""
        gain, state = self._oscillating()
        return self._result(state, lasing=gain > 1 - 1e-6)

    def steady_light(self) -> Propagation:
        """Return the light and the excitation above threshold; the first line is the laser line.

        Raises:
            ValueError: The laser is below threshold.
        """
        gain, state = self._oscillating()
        if gain < 1 - 1e-6:
            raise ValueError(
                f"pump_power_w = {self.pump_power_w:g} W: the laser is below threshold, "
                f"{self.threshold_pump_w():g} W"
            )
        return state

    def output_curve_w(self, pump_power_w: Array) -> Array:
        """Return the output power in W for each launched pump power in W."""
        return np.array(
            [replace(self, pump_power_w=float(p)).solve().output_w for p in pump_power_w]
        )

    def _oscillating(self) -> tuple[float, Propagation]:
        """Return the round-trip gain, which is 1 above threshold, and the light."""
        gain, state = self._round_trip(_FAINTEST_W)
        if gain <= 1:
            return gain, state

        def excess(log_power: float) -> float:
            return float(np.log(self._round_trip(float(np.exp(log_power)))[0]))

        # The circulating power is below the pump power divided by the round-trip loss.
        most_w = 1e3 * self.pump_power_w
        log_power = brentq(excess, np.log(_FAINTEST_W), np.log(most_w), xtol=1e-12)
        return self._round_trip(float(np.exp(log_power)))

    def _round_trip(self, circulating_w: float) -> tuple[float, Propagation]:
        """Return the round-trip gain of light that leaves the back grating with a power in W."""
        mode = self.mode
        amplifier = Amplifier(
            self.fiber,
            (Pump(self.pump_wavelength_nm, self.pump_power_w, path="core"),),
            (Signal(mode.wavelength_nm, circulating_w),),
            ase=None,
            spectroscopy=self.spectroscopy,
        )
        lines = amplifier.lines()
        reflected = np.array([float(self.cavity.front.reflectivity(mode.wavelength_nm)), 0.0])
        lines = replace(lines, reflectivity_at_end=reflected)
        widths = np.full(_CELLS, self.fiber.length_m / _CELLS)
        state = solve(lines, widths).propagation
        back = float(self.cavity.back.reflectivity(mode.wavelength_nm))
        return back * state.backward[0, 0] / state.forward[0, 0], state

    def _result(self, state: Propagation, lasing: bool) -> DbrResult:
        mode, lines = self.mode, state.lines
        front = float(self.cavity.front.reflectivity(mode.wavelength_nm))
        back = float(self.cavity.back.reflectivity(mode.wavelength_nm))
        photon = PLANCK * SPEED_OF_LIGHT * 1e9 / mode.wavelength_nm
        pump_photon = PLANCK * SPEED_OF_LIGHT * 1e9 / self.pump_wavelength_nm
        zeta = lines.saturation_per_m_s
        output = (1 - front) * state.forward[-1, 0] * zeta * photon if lasing else 0.0
        leaving = (1 - back) * state.backward[0, 0] * zeta * photon if lasing else 0.0
        excitation = float(state.excitation.mean())
        return DbrResult(
            mode=mode,
            output_w=float(output),
            back_w=float(leaving),
            pump_absorbed_w=self.pump_power_w - float(state.forward[-1, 1] * zeta * pump_photon),
            mean_excitation=excitation,
            threshold_excitation=self.threshold_excitation(),
            quantum_linewidth_hz=schawlow_townes_hz(
                mode.wavelength_nm,
                float(output),
                self.cavity.free_spectral_range_hz,
                2 * mode.loss_nepers,
                -float(np.log(front)),
                self._inversion_factor(mode.wavelength_nm, excitation),
            ),
        )

    def _inversion_factor(self, wavelength_nm: float, excitation: float) -> float:
        """Return n_sp = σe x / [σe x - σa (1 - x)]."""
        emitted = float(self.spectroscopy.emission_m2(wavelength_nm)) * excitation
        absorbed = float(self.spectroscopy.absorption_m2(wavelength_nm)) * (1 - excitation)
        return emitted / (emitted - absorbed) if emitted > absorbed else float("inf")


def schawlow_townes_hz(
    wavelength_nm: float,
    output_w: float,
    free_spectral_range_hz: float,
    round_trip_loss: float,
    output_coupling: float,
    inversion_factor: float = 1.0,
) -> float:
    """Return the quantum limit of the linewidth (FWHM) in Hz.

    Δν = hν n_sp l T FSR² / (4π P) with the round-trip loss l and the output coupling T, both as -ln
    of the remaining fraction, and n_sp of a quasi-three-level medium (Schawlow and Townes, Phys.
    Rev. 112, 1940 (1958), above threshold as in Lax, Phys. Rev. 160, 290 (1967)).
    """
    require_positive("round_trip_loss", round_trip_loss, "nepers")
    if output_w <= 0:
        return float("inf")
    photon = PLANCK * SPEED_OF_LIGHT * 1e9 / wavelength_nm
    rate = round_trip_loss * output_coupling * free_spectral_range_hz**2
    return float(photon * inversion_factor * rate / (4 * np.pi * output_w))
