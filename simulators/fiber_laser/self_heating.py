"""The fiber's own heat as the cause of its temperature, and so of its cross-sections, along z."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .amplifier_result import AmplifierResult
from .fiber import Fiber
from .propagation import Lines
from .quantities import Array, require_positive, require_within
from .spectroscopy import COLDEST_K, HOTTEST_K
from .steady_state import ConvergenceError, GridSolution, solve_on_adapted_grid

if TYPE_CHECKING:
    from .amplifier import Amplifier

SILICA_CONDUCTIVITY_W_PER_M_K = 1.38
_BARE_DIAMETER_UM = 125.0  # of a fiber without a pump cladding
_TOLERANCE = 1e-5  # of the temperature rise, relative to one K more than the largest
_MOST_PROFILES = 60


@dataclass(frozen=True)
class Cooling:
    """Conduction through the glass and convection at its surface.

    The temperature of the spectroscopy is that of the surroundings. A coating is not included.

    Args:
        convection_w_per_m2_k: Heat transfer coefficient h in W/m²/K, from 10 (still air) to 1000
            (water) and more (a metal groove).
        outer_diameter_um: Diameter 2b of the glass in µm; None: the pump cladding, or 125 µm.
        conductivity_w_per_m_k: Thermal conductivity k of the glass in W/m/K.
    """

    convection_w_per_m2_k: float = 1000.0
    outer_diameter_um: float | None = None
    conductivity_w_per_m_k: float = SILICA_CONDUCTIVITY_W_PER_M_K

    def __post_init__(self) -> None:
        require_positive("convection_w_per_m2_k", self.convection_w_per_m2_k, "W/m²/K")
        require_positive("conductivity_w_per_m_k", self.conductivity_w_per_m_k, "W/m/K")
        if self.outer_diameter_um is not None:
            require_positive("outer_diameter_um", self.outer_diameter_um, "µm")

    def resistance_k_m_per_w(self, fiber: Fiber) -> float:
        """Return the temperature rise of the axis per heat and length in K m/W.

        1/(4πk) + ln(b/a)/(2πk) + 1/(2πbh) for heat in a core of radius a (Brown and Hoffman, IEEE
        J. Quantum Electron. 37, 207 (2001)). The mean of the core is lower by 1/(8πk), 0.03 K m/W.

        Raises:
            ValueError: The glass is thinner than the core.
        """
        core, outer = fiber.core_diameter_um, self.outer_diameter_um
        if outer is None:
            outer = fiber.cladding_diameter_um or max(core, _BARE_DIAMETER_UM)
        require_within("outer_diameter_um", outer, "µm", core)
        inside = 1 / (4 * np.pi * self.conductivity_w_per_m_k)
        glass = np.log(outer / core) / (2 * np.pi * self.conductivity_w_per_m_k)
        surface = 1 / (np.pi * outer * 1e-6 * self.convection_w_per_m2_k)
        return float(inside + glass + surface)


def solve_heated(
    amplifier: "Amplifier", grid_tolerance: float, guess: AmplifierResult | None
) -> AmplifierResult:
    """Solve an amplifier whose heat sets the temperature of its cells.

    The steady state at fixed temperatures gives the heat, and the heat new temperatures, until both
    agree. Each steady state has its own photon balance.

    Raises:
        ConvergenceError: There is no steady state, or the core becomes too hot for
            the cross-sections.
    """
    assert amplifier.cooling is not None
    resistance = amplifier.cooling.resistance_k_m_per_w(amplifier.fiber)
    surroundings, length = amplifier.spectroscopy.temperature_k, amplifier.fiber.length_m
    grid: GridSolution | None = None
    at, rise = np.array([length / 2]), np.zeros(1)
    if guess is not None:
        grid, at = guess.grid, _middles(guess.edges_m) * (length / guess.edges_m[-1])
        rise = np.zeros(at.size) if guess.heating_k is None else guess.heating_k
    share, before = 1.0, np.inf
    for _ in range(_MOST_PROFILES):
        profile = at, rise

        def lines(edges: Array, profile: tuple[Array, Array] = profile) -> Lines:
            return amplifier.lines(surroundings + np.interp(_middles(edges), *profile))

        grid = solve_on_adapted_grid(lines, length, grid_tolerance, grid)
        at, assumed = _middles(grid.edges_m), np.interp(_middles(grid.edges_m), *profile)
        result = AmplifierResult(amplifier, grid, assumed)
        change = result.heat_w_per_m * resistance - assumed
        largest = float(np.abs(change).max())
        if largest <= _TOLERANCE * (1 + float(np.abs(assumed).max())):
            return result
        share, before = share / 2 if largest > before else share, largest
        low, high = COLDEST_K - surroundings, HOTTEST_K - surroundings
        rise = np.clip(assumed + share * change, low, high)
    hottest = float((assumed + change).max()) + surroundings
    raise ConvergenceError(
        f"cooling: the temperature differs by {largest:.2g} K after {_MOST_PROFILES} profiles; "
        f"the heat would bring the core to {hottest:.0f} K, and cross-sections are valid up to "
        f"{HOTTEST_K:.0f} K; increase the convection or reduce the pump"
    )


def _middles(edges: Array) -> Array:
    return (edges[1:] + edges[:-1]) / 2
