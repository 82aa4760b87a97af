"""Gradients of an amplifier's outputs with respect to anything that it is built of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from lightning_plugins.simulators.fiber_laser.adjoint import adjoint_gradient
from lightning_plugins.simulators.fiber_laser.amplifier import Amplifier
from lightning_plugins.simulators.fiber_laser.amplifier_result import AmplifierResult
from lightning_plugins.simulators.fiber_laser.paths import value_at, with_value
from lightning_plugins.simulators.fiber_laser.spectroscopy import Array

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
