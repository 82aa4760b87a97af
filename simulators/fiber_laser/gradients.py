"""Gradients of an amplifier's outputs with respect to its inputs, by the adjoint method."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve as solve_linear  # type: ignore[import-untyped]

from .amplifier import Amplifier
from .amplifier_result import AmplifierResult
from .parameter_paths import value_at, with_value
from .propagation import Propagation, step_derivatives
from .quantities import Array

_RELATIVE_STEP = 1e-6


@dataclass(frozen=True, eq=False)
class Leaving:
    """What an output may be computed from.

    Args:
        forward_w: power of every line (signals, pumps, bins) that leaves at z = L, (K,).
        backward_w: the same at z = 0, (K,).
        mean_excitation: share of excited ions, averaged over the length.
    """

    forward_w: Array
    backward_w: Array
    mean_excitation: float


Output = Callable[[Leaving], float]


def first_signal_w(leaving: Leaving) -> float:
    """Power of the first line, a forward signal, in W."""
    return float(leaving.forward_w[0])


def gradient(
    result: AmplifierResult, inputs: tuple[str, ...], output: Output = first_signal_w
) -> dict[str, float]:
    """Derivatives of an output with respect to inputs, on the result's grid.

    The steady state is differentiated by its adjoint, at the cost of one linear system for all
    inputs. What is explicit algebra on either side of it (cross-sections, overlaps, powers to
    photons; the output's own formula) is differenced centrally, which costs no solve.

    Args:
        result: the steady state.
        inputs: paths such as ``fiber.length_m``, ``pumps[0].power_w``, ``spectroscopy.lifetime_s``.
        output: a smooth function of what leaves.

    Returns:
        Derivative in the output's unit by the input's unit, for each path.
    """
    amplifier, state = result.amplifier, result.grid.solution.propagation
    forward, backward, mean = state.forward[-1], state.backward[0], _mean_excitation(result)
    scales = _scales(amplifier)

    def scaled(scales: tuple[Array, Array], change: Mapping[str, Array | float]) -> float:
        leaving = Leaving(
            (forward + change.get("forward", 0.0)) * scales[0],
            (backward + change.get("backward", 0.0)) * scales[1],
            float(mean + change.get("mean", 0.0)),
        )
        return output(leaving)

    by_forward = _differenced(lambda change: scaled(scales, {"forward": change}), forward)
    by_backward = _differenced(lambda change: scaled(scales, {"backward": change}), backward)
    by_mean = _differenced(lambda change: scaled(scales, {"mean": change[0]}), np.array([mean]))[0]
    shares = state.widths_m / state.widths_m.sum()
    by_lines = adjoint_gradient(state, by_forward, by_backward, by_mean * shares).packed()

    found = {}
    for path in inputs:
        value = float(value_at(amplifier, path))
        step = _RELATIVE_STEP * abs(value) if value else _RELATIVE_STEP
        # At zero power only the upper side exists.
        above, below = value + step, value - step if value else value
        upper, lower = (with_value(amplifier, path, at) for at in (above, below))
        change = packed_parameters(upper) - packed_parameters(lower)
        explicit = scaled(_scales(upper), {}) - scaled(_scales(lower), {})
        found[path] = float((by_lines @ change + explicit) / (above - below))
    return found


def packed_parameters(amplifier: Amplifier) -> Array:
    """What the solver is given, in one vector; fluxes and spontaneous emission divided by ζ."""
    lines = amplifier.lines()
    zeta = lines.saturation_per_m_s
    return np.concatenate(
        [
            lines.absorption_per_m,
            lines.emission_per_m,
            lines.loss_per_m,
            lines.spontaneous_per_m_s / zeta,
            lines.forward_in_per_s / zeta,
            lines.backward_in_per_s / zeta,
            lines.reflectivity_at_start,
            lines.reflectivity_at_end,
            [amplifier.fiber.length_m],
        ]
    )


def _scales(amplifier: Amplifier) -> tuple[Array, Array]:
    """Leaving power over the solver's flux at the ends, forward and backward."""
    lines = amplifier.lines()
    scale = amplifier.photon_energies_j * lines.saturation_per_m_s
    return scale * (1 - lines.reflectivity_at_end), scale * (1 - lines.reflectivity_at_start)


def _differenced(function: Callable[[Array], float], values: Array) -> Array:
    """Central differences by small changes of each value; values of zero by a small share."""
    smallest = 1e-9 * max(float(np.abs(values).max()), 1e-300)
    slopes = np.empty(values.size)
    for place, value in enumerate(values):
        change = np.zeros(values.size)
        change[place] = _RELATIVE_STEP * abs(value) + smallest
        slopes[place] = (function(change) - function(-change)) / (2 * change[place])
    return slopes


def _mean_excitation(result: AmplifierResult) -> float:
    return float(np.average(result.excitation, weights=np.diff(result.edges_m)))


@dataclass(frozen=True, eq=False)
class LineGradient:
    """Derivatives of one number with respect to what the solver was given, (K,) each.

    Fluxes and spontaneous emission are those divided by ζ, as in the propagation.
    """

    absorption: Array
    emission: Array
    loss: Array
    spontaneous: Array
    forward_in: Array
    backward_in: Array
    reflectivity_at_start: Array
    reflectivity_at_end: Array
    length: float

    def packed(self) -> Array:
        """All in one vector, in the order of :func:`packed_parameters`."""
        return np.concatenate(
            [
                self.absorption,
                self.emission,
                self.loss,
                self.spontaneous,
                self.forward_in,
                self.backward_in,
                self.reflectivity_at_start,
                self.reflectivity_at_end,
                [self.length],
            ]
        )


def adjoint_gradient(
    state: Propagation, forward_out: Array, backward_out: Array, excitation: Array
) -> LineGradient:
    """Gradient of an output O of a steady state, the steady state moving along.

    With the imbalance R(x, p) = 0, dO/dp = ∂O/∂p + λᵀ ∂R/∂p where λ solves (∂R/∂x)ᵀ λ = -∂O/∂x: the
    implicit function theorem, at the cost of one linear system and two sweeps.

    Args:
        state: a converged steady state.
        forward_out: ∂O by the forward fluxes at z = L, (K,).
        backward_out: ∂O by the backward fluxes at z = 0, (K,).
        excitation: ∂O by the excitation of the cells, (M,).
    """
    cells = state.excitation.size
    by_excitation, _ = pulled_back(state, forward_out, backward_out, np.zeros(cells))
    multiplier = solve_linear(state.jacobian().T, -(by_excitation + excitation))
    _, gradient = pulled_back(state, forward_out, backward_out, multiplier)
    return gradient


def pulled_back(
    state: Propagation, forward_out: Array, backward_out: Array, imbalance: Array
) -> tuple[Array, LineGradient]:
    """Derivatives of O + λᵀR by the excitation, (M,), and by the parameters, λ = ``imbalance``."""
    lines, h, x = state.lines, state.widths_m[:, None], state.excitation[:, None]
    slope = lines.gain_slope_per_m
    weight = imbalance[:, None] * (lines.absorption_per_m - x * slope)
    forward, backward, entering = _against_the_light(state, forward_out, backward_out, weight)
    slope1, slope2 = step_derivatives(state.nepers, state.grown, state.phi1, state.phi2)
    inflow = state.forward[:-1] + state.backward[1:]
    by_nepers = state.grown * (forward * state.forward[:-1] + backward * state.backward[1:])
    by_nepers += (forward + backward) * state.source * slope1
    by_nepers += weight * (inflow * slope1 + 2 * state.source * slope2)
    by_source = (forward + backward) * state.phi1 + 2 * weight * state.phi2
    spontaneous = lines.spontaneous_per_m_s / lines.saturation_per_m_s
    by_gain = by_nepers * h
    by_excitation = (by_gain * slope + by_source * spontaneous * h).sum(1)
    by_excitation -= imbalance * state.rate()
    by_width = (by_nepers * state.gain + by_source * spontaneous * x).sum(1)
    read = imbalance[:, None] * state.mean
    by_slope = (by_gain * x - read * x).sum(0)
    return by_excitation, LineGradient(
        absorption=by_slope + (read - by_gain).sum(0),
        emission=by_slope,
        loss=-by_gain.sum(0),
        spontaneous=(by_source * x * h).sum(0),
        forward_in=entering[0],
        backward_in=entering[1],
        reflectivity_at_start=entering[0] * state.backward[0],
        reflectivity_at_end=entering[1] * state.forward[-1],
        length=float(by_width @ state.widths_m / state.widths_m.sum()),
    )


def _against_the_light(
    state: Propagation, forward_out: Array, backward_out: Array, weight: Array
) -> tuple[Array, Array, Array]:
    """Derivatives by each cell's outflow, (M, K) both ways, and by the ends' inflows, (2, K)."""
    lines = state.lines
    grown = np.stack([state.grown[::-1], state.grown], 1)
    read = weight * state.phi1
    read = np.stack([read[::-1], read], 1)
    leaving = np.stack([forward_out, backward_out])
    if lines.reflects:
        alone = _marched_back(np.zeros_like(leaving), grown, read)[1]
        start, end = lines.reflectivity_at_start, lines.reflectivity_at_end
        forward_in = state.through * forward_out + alone[0]
        backward_in = state.through * backward_out + alone[1]
        closed = 1 - state.round_trip
        entering = np.stack(
            [
                (forward_in + end * state.through * backward_in) / closed,
                (backward_in + start * state.through * forward_in) / closed,
            ]
        )
        leaving = leaving + np.stack([end * entering[1], start * entering[0]])
    outflows, entering = _marched_back(leaving, grown, read)
    return outflows[::-1, 0], outflows[:, 1], entering


def _marched_back(leaving: Array, grown: Array, read: Array) -> tuple[Array, Array]:
    outflows = np.empty_like(grown)
    current = leaving
    for cell in range(len(grown)):
        outflows[cell] = current
        current = current * grown[cell] + read[cell]
    return outflows, current
