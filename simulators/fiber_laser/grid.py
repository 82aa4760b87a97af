"""The steady state on a grid that follows the solution, refined until the outputs stand still."""

from dataclasses import dataclass

import numpy as np

from lightning_plugins.simulators.fiber_laser.lines import Lines
from lightning_plugins.simulators.fiber_laser.propagation import Propagation
from lightning_plugins.simulators.fiber_laser.spectroscopy import Array
from lightning_plugins.simulators.fiber_laser.steady_state import (
    ConvergenceError,
    Solution,
    solve,
)

_FIRST_CELLS = 32
_MOST_CELLS = 2048
_NEGLIGIBLE = 1e-6  # of all light that enters, below which an output's relative error is moot


@dataclass(frozen=True)
class GridSolution:
    """A steady state and how far its grid is from the limit of infinitely many cells.

    Args:
        solution: the steady state on the finest grid.
        edges_m: edges of its cells, (M + 1,).
        grid_error: estimated largest relative error of an output, from the next coarser grid.
    """

    solution: Solution
    edges_m: Array
    grid_error: float


def solve_on_adapted_grid(
    lines: Lines, length_m: float, tolerance: float = 1e-4, guess: GridSolution | None = None
) -> GridSolution:
    """Solve on ever finer grids until the estimated error of every output is below ``tolerance``.

    Cells are short where the excitation changes; from grid to grid each is halved, so that the
    error falls by four and a third of the change estimates it. Outputs are the power of each signal
    and pump, and the sum of the spontaneous emission, at both ends.

    Args:
        lines: the K lines.
        length_m: length of the fiber.
        tolerance: relative.
        guess: solution of a similar fiber; its grid is the first.

    Raises:
        ConvergenceError: no steady state, or more cells than 2048 would be needed.
    """
    if guess is None:
        edges = np.linspace(0, length_m, _FIRST_CELLS + 1)
        coarse = solve(lines, np.diff(edges))
        edges, excitation = _adapted(edges, coarse.propagation.excitation)
    else:
        edges = guess.edges_m[::2] * (length_m / guess.edges_m[-1])
        excitation = guess.solution.propagation.excitation.reshape(-1, 2).mean(1)
    coarse = solve(lines, np.diff(edges), excitation)
    while True:
        edges, excitation = _halved(edges, coarse.propagation.excitation)
        fine = solve(lines, np.diff(edges), excitation)
        error = _largest_change(coarse.propagation, fine.propagation) / 3
        if error <= tolerance:
            return GridSolution(fine, edges, error)
        if 2 * edges.size > _MOST_CELLS:
            raise ConvergenceError(
                f"the grid's error is still {error:.2g} (at most {tolerance:g}) with "
                f"{edges.size - 1} cells"
            )
        coarse = fine


def outputs(propagation: Propagation) -> Array:
    """What leaves: each signal and pump, then the sum of spontaneous emission, at both ends."""
    spontaneous = propagation.lines.spontaneous_per_m_s > 0
    ends = np.stack([propagation.forward[-1], propagation.backward[0]])
    return np.concatenate([ends[:, ~spontaneous].ravel(), ends[:, spontaneous].sum(1)])


def _largest_change(coarse: Propagation, fine: Propagation) -> float:
    before, after = outputs(coarse), outputs(fine)
    lines = fine.lines
    entering = (lines.forward_in_per_s + lines.backward_in_per_s).sum() / lines.saturation_per_m_s
    return float(np.max(np.abs(after - before) / (after + _NEGLIGIBLE * entering)))


def _adapted(edges: Array, excitation: Array) -> tuple[Array, Array]:
    """As many cells, short where the excitation changes: half of the weight is for its changes."""
    middles = (edges[1:] + edges[:-1]) / 2
    change = np.abs(np.gradient(excitation, middles))
    weight = 1 / edges[-1] + change / max((change * np.diff(edges)).sum(), 1e-300)
    smooth = np.convolve(np.pad(weight, 2, mode="edge"), [0.1, 0.2, 0.4, 0.2, 0.1], mode="valid")
    covered = np.concatenate([[0.0], np.cumsum(smooth * np.diff(edges))])
    adapted = np.interp(np.linspace(0, covered[-1], edges.size), covered, edges)
    return adapted, np.interp((adapted[1:] + adapted[:-1]) / 2, middles, excitation)


def _halved(edges: Array, excitation: Array) -> tuple[Array, Array]:
    middles = (edges[1:] + edges[:-1]) / 2
    halved = np.sort(np.concatenate([edges, middles]))
    return halved, np.interp((halved[1:] + halved[:-1]) / 2, middles, excitation)
