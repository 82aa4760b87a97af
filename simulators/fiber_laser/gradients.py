"""Gradients of an amplifier's outputs with respect to its inputs, by the adjoint method."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

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
    """The light that leaves an amplifier, from which an output is computed.

    Args:
        forward_w: Power of each line (signals, pumps, bins) that leaves at z = L, (K,).
        backward_w: Power of each line that leaves at z = 0, (K,).
        mean_excitation: Fraction of excited ions, averaged over the length.
        power_length_w_m: ∫ P dz of each line, both directions, in W m, (K,).
        heat_w: Heat of the fiber in W, as :attr:`AmplifierResult.heat_w`.
        amplifier: The amplifier; gradients include an output's own dependence on it.
    """

    forward_w: Array
    backward_w: Array
    mean_excitation: float
    power_length_w_m: Array
    heat_w: float
    amplifier: Amplifier


Output = Callable[[Leaving], float]


def first_signal_w(leaving: Leaving) -> float:
    """Return the power of the first line, a forward signal, in W."""
    return float(leaving.forward_w[0])


def gradient(
    result: AmplifierResult, inputs: tuple[str, ...], output: Output = first_signal_w
) -> dict[str, float]:
    """Return the derivatives of an output with respect to inputs, on the result's grid.

    The adjoint method differentiates the steady state; it solves one linear system for all inputs.
    The explicit formulas before and after the steady state (cross-sections, overlaps, conversion
    between power and photons, the output itself) are differentiated by central differences, which
    require no further solution.

    Args:
        result: The steady state.
        inputs: Paths such as ``fiber.length_m``, ``pumps[0].power_w``, ``spectroscopy.lifetime_s``.
        output: A smooth function of the light that leaves.

    Returns:
        For each path the derivative, in units of the output per unit of the input.

    Raises:
        ValueError: The amplifier has a ``cooling``.
    """
    return gradients(result, inputs, (output,))[0]


def gradients(
    result: AmplifierResult, inputs: Sequence[str], outputs: Sequence[Output]
) -> list[dict[str, float]]:
    """Return the :func:`gradient` of each output; the inputs are differentiated once for all."""
    amplifier, state = result.amplifier, result.grid.solution.propagation
    if amplifier.cooling is not None:
        raise ValueError(
            "cooling: gradients are those at a fixed temperature; set cooling = None, or use "
            "differences of solve()"
        )
    fluxes = _Fluxes.of(result)
    here = _Conversion.of(amplifier)
    shares = state.widths_m / state.widths_m.sum()
    by_lines = []
    for output in outputs:
        forward, backward, mean, length = (
            _differenced(partial(_changed, output, here, fluxes, name), getattr(fluxes, name))
            for name in ("forward", "backward", "mean", "length")
        )
        by_lines.append(adjoint_gradient(state, forward, backward, mean * shares, length).packed())
    found: list[dict[str, float]] = [{} for _ in outputs]
    for path in inputs:
        value = float(value_at(amplifier, path))
        step = _RELATIVE_STEP * abs(value) if value else _RELATIVE_STEP
        # At zero power only the upper side exists.
        above, below = value + step, value - step if value else value
        upper, lower = (with_value(amplifier, path, at) for at in (above, below))
        change = packed_parameters(upper) - packed_parameters(lower)
        after, before = (_Conversion.of(one).leaving(fluxes) for one in (upper, lower))
        for slopes, output, by_line in zip(found, outputs, by_lines, strict=True):
            explicit = output(after) - output(before)
            slopes[path] = float((by_line @ change + explicit) / (above - below))
    return found


def packed_parameters(amplifier: Amplifier) -> Array:
    """Return the solver's parameters in one vector; fluxes and emission are divided by ζ."""
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


def leaving_of(result: AmplifierResult) -> Leaving:
    """Return the light that leaves an amplifier."""
    return _Conversion.of(result.amplifier).leaving(_Fluxes.of(result))


@dataclass(frozen=True, eq=False)
class _Fluxes:
    """The fluxes of a :class:`Leaving`, in units of ζ: (K,), (K,), (1,) and (K,)."""

    forward: Array
    backward: Array
    mean: Array
    length: Array

    @classmethod
    def of(cls, result: AmplifierResult) -> "_Fluxes":
        state = result.grid.solution.propagation
        mean = np.average(state.excitation, weights=state.widths_m, keepdims=True)
        return cls(state.forward[-1], state.backward[0], mean, state.widths_m @ state.mean)

    def changed(self, name: str, change: Array) -> "_Fluxes":
        return replace(self, **{name: getattr(self, name) + change})


@dataclass(frozen=True, eq=False)
class _Conversion:
    """Factors from fluxes to powers, and what heat requires besides the light that leaves."""

    amplifier: Amplifier
    at_end_w: Array
    at_start_w: Array
    within_w: Array
    entering_w: float
    escaping_w: float  # fluorescence of a fully excited fiber

    @classmethod
    def of(cls, amplifier: Amplifier) -> "_Conversion":
        lines, photon_j = amplifier.lines(), amplifier.photon_energies_j
        scale = photon_j * lines.saturation_per_m_s
        escaping = lines.saturation_per_m_s - 2 * lines.spontaneous_per_m_s.sum()
        escaping *= amplifier.fiber.length_m * amplifier.spectroscopy.mean_fluorescence_photon_j
        return cls(
            amplifier,
            scale * (1 - lines.reflectivity_at_end),
            scale * (1 - lines.reflectivity_at_start),
            scale,
            float((lines.forward_in_per_s + lines.backward_in_per_s) @ photon_j),
            float(escaping),
        )

    def leaving(self, fluxes: _Fluxes) -> Leaving:
        forward_w, backward_w = fluxes.forward * self.at_end_w, fluxes.backward * self.at_start_w
        mean = float(fluxes.mean[0])
        left_w = float(forward_w.sum() + backward_w.sum())
        heat_w = self.entering_w - left_w - self.escaping_w * mean
        return Leaving(
            forward_w, backward_w, mean, fluxes.length * self.within_w, heat_w, self.amplifier
        )


def _changed(
    output: Output, conversion: _Conversion, fluxes: _Fluxes, name: str, change: Array
) -> float:
    return output(conversion.leaving(fluxes.changed(name, change)))


def _differenced(function: Callable[[Array], float], values: Array) -> Array:
    """Return central differences with respect to each value; zeros get a small absolute step."""
    smallest = 1e-9 * max(float(np.abs(values).max()), 1e-300)
    slopes = np.empty(values.size)
    for place, value in enumerate(values):
        change = np.zeros(values.size)
        change[place] = _RELATIVE_STEP * abs(value) + smallest
        slopes[place] = (function(change) - function(-change)) / (2 * change[place])
    return slopes


@dataclass(frozen=True, eq=False)
class LineGradient:
    """Derivatives of one number with respect to the solver's parameters, (K,) each.

    Fluxes and spontaneous emission are divided by ζ, as in :class:`Propagation`.
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
    circulating: Array

    def packed(self) -> Array:
        """Return all derivatives in one vector, in the order of :func:`packed_parameters`."""
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
    state: Propagation,
    forward_out: Array,
    backward_out: Array,
    excitation: Array,
    power_length: Array | None = None,
) -> LineGradient:
    """Return the total derivative of an output O of a steady state.

    By the implicit function theorem for the imbalance R(x, p) = 0, dO/dp = ∂O/∂p + λᵀ ∂R/∂p, where
    λ solves (∂R/∂x)ᵀ λ = -∂O/∂x. This costs one linear system and two passes through the fiber.

    Args:
        state: A converged steady state.
        forward_out: ∂O/∂(forward fluxes at z = L), (K,).
        backward_out: ∂O/∂(backward fluxes at z = 0), (K,).
        excitation: ∂O/∂(excitation of the cells), (M,).
        power_length: ∂O/∂(∫ flux dz of each line), (K,); None for zeros.
    """
    cells, flux = state.excitation.size, state.circulating
    by_excitation, plain = pulled_back(
        state, forward_out, backward_out, np.zeros(cells), None, power_length
    )
    unknowns = by_excitation + excitation
    if flux is not None:
        unknowns = np.append(unknowns, plain.circulating[state.explicit] * flux)
    multiplier = solve_linear(state.jacobian().T, -unknowns)
    closing = np.zeros(state.lines.count)
    if flux is not None:
        closing[state.explicit] = multiplier[cells:] / flux
    _, gradient = pulled_back(
        state, forward_out, backward_out, multiplier[:cells], closing, power_length
    )
    return gradient


def pulled_back(
    state: Propagation,
    forward_out: Array,
    backward_out: Array,
    imbalance: Array,
    closing: Array | None = None,
    power_length: Array | None = None,
) -> tuple[Array, LineGradient]:
    """Return the derivatives of O + λᵀR + μᵀC by excitation and by parameters.

    R is the imbalance of the cells and C = F - F_in - R_start B(0) that of the circulating fluxes.

    Args:
        state: The light and the excitation.
        forward_out: ∂O/∂(forward fluxes at z = L), (K,).
        backward_out: ∂O/∂(backward fluxes at z = 0), (K,).
        imbalance: λ, (M,).
        closing: μ, (K,), zero for lines without a circulating flux; None for zeros.
        power_length: ∂O/∂(∫ flux dz of each line), (K,); None for zeros.
    """
    lines, h, x = state.lines, state.widths_m[:, None], state.excitation[:, None]
    slope = lines.gain_slope_per_m
    weight = imbalance[:, None] * (lines.absorption_per_m - x * slope)
    closing = np.zeros(lines.count) if closing is None else closing
    power_length = np.zeros(lines.count) if power_length is None else power_length
    weight = weight + h * power_length
    backward_out = backward_out - closing * lines.reflectivity_at_start
    forward, backward, entering = _reverse_pass(state, forward_out, backward_out, weight)
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
    by_width += state.mean @ power_length
    read = imbalance[:, None] * state.mean
    by_slope = (by_gain * x - read * x).sum(0)
    return by_excitation, LineGradient(
        absorption=by_slope + (read - by_gain).sum(0),
        emission=by_slope,
        loss=-by_gain.sum(0),
        spontaneous=(by_source * x * h).sum(0),
        forward_in=np.where(state.explicit, -closing, entering[0]),
        backward_in=entering[1],
        reflectivity_at_start=np.where(state.explicit, -closing, entering[0]) * state.backward[0],
        reflectivity_at_end=entering[1] * state.forward[-1],
        length=float(by_width @ state.widths_m / state.widths_m.sum()),
        circulating=np.where(state.explicit, entering[0] + closing, 0.0),
    )


def _reverse_pass(
    state: Propagation, forward_out: Array, backward_out: Array, weight: Array
) -> tuple[Array, Array, Array]:
    """Return derivatives by each cell's outflow, twice (M, K), and by the inflows, (2, K)."""
    lines = state.lines
    grown = np.stack([state.grown[::-1], state.grown], 1)
    read = weight * state.phi1
    read = np.stack([read[::-1], read], 1)
    leaving = np.stack([forward_out, backward_out])
    if lines.reflects:
        alone = _marched_back(np.zeros_like(leaving), grown, read)[1]
        start, end = state.start, lines.reflectivity_at_end
        forward_in = state.through * forward_out + alone[0]
        backward_in = state.through * backward_out + alone[1]
        entering = np.stack(
            [
                (forward_in + end * state.through * backward_in) / state.closed,
                (backward_in + start * state.through * forward_in) / state.closed,
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
