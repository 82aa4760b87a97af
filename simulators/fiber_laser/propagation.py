"""Light through a fiber with a given excitation: all lines, both directions, exact steps."""

from dataclasses import dataclass
from math import factorial

import numpy as np

from .quantities import Array

_SERIES_BELOW = 0.02
_TERMS = 7
_DEEP = 600.0  # nepers from end to end; e^±x of half of it is far from overflow


@dataclass(frozen=True, eq=False)
class Lines:
    """K spectral lines, each running forward and backward through one fiber, in Giles' parameters.

    Light is counted in photons. With x the share of excited ions, a line of photon flux F obeys
    ±dF/dz = [(a + e) x - a - l] F + s x, and the ions ζ x = Σ [a - (a + e) x] F over all lines and
    both directions (Giles and Desurvire, J. Lightwave Technol. 9, 271 (1991)).

    Args:
        absorption_per_m: a = Γ N σa, (K,).
        emission_per_m: e = Γ N σe, (K,).
        loss_per_m: l, scattering that excites nothing, (K,).
        spontaneous_per_m_s: s = e m Δν, photons that an all excited fiber adds per m and s into m
            polarisations of a bin of width Δν, in each direction, (K,). Zero for a signal.
        forward_in_per_s: photon flux entering at z = 0, (K,).
        backward_in_per_s: photon flux entering at z = L, (K,).
        reflectivity_at_start: share of the backward light sent back at z = 0, (K,).
        reflectivity_at_end: share of the forward light sent back at z = L, (K,).
        saturation_per_m_s: ζ = A N / τ, decays per m and s of an all excited fiber.
    """

    absorption_per_m: Array
    emission_per_m: Array
    loss_per_m: Array
    spontaneous_per_m_s: Array
    forward_in_per_s: Array
    backward_in_per_s: Array
    reflectivity_at_start: Array
    reflectivity_at_end: Array
    saturation_per_m_s: float

    @property
    def count(self) -> int:
        """K."""
        return self.absorption_per_m.size

    @property
    def gain_slope_per_m(self) -> Array:
        """a + e: change of a line's gain with the share of excited ions, (K,)."""
        return self.absorption_per_m + self.emission_per_m

    @property
    def reflects(self) -> bool:
        """Whether any light is sent back at an end."""
        return bool(np.any(self.reflectivity_at_start) or np.any(self.reflectivity_at_end))


def step_functions(y: Array) -> tuple[Array, Array, Array]:
    """e^y, φ1(y) and φ2(y), elementwise, to rounding also near zero."""
    grown = np.expm1(y)
    near = np.abs(y) < _SERIES_BELOW
    with np.errstate(divide="ignore", invalid="ignore"):
        phi1 = grown / y
        phi2 = (phi1 - 1) / y
    if near.any():
        phi1[near] = _series(y[near], 1)
        phi2[near] = _series(y[near], 2)
    return grown + 1, phi1, phi2


def step_derivatives(y: Array, grown: Array, phi1: Array, phi2: Array) -> tuple[Array, Array]:
    """φ1'(y) and φ2'(y), given e^y, φ1 and φ2."""
    near = np.abs(y) < _SERIES_BELOW
    with np.errstate(divide="ignore", invalid="ignore"):
        slope1 = (grown - phi1) / y
        slope2 = (slope1 - phi2) / y
    if near.any():
        slope1[near] = _series_slope(y[near], 1)
        slope2[near] = _series_slope(y[near], 2)
    return slope1, slope2


def _series(y: Array, order: int) -> Array:
    """φ_order(y) = Σ y^n / (n + order)!."""
    return _polynomial([1 / factorial(n + order) for n in range(_TERMS)], y)


def _series_slope(y: Array, order: int) -> Array:
    return _polynomial([n / factorial(n + order) for n in range(1, _TERMS + 1)], y)


def _polynomial(coefficients: list[float], y: Array) -> Array:
    value = np.zeros_like(y)
    for coefficient in reversed(coefficients):
        value = value * y + coefficient
    return value


@dataclass(eq=False)
class Propagation:
    """K lines through M cells of constant excitation x; fluxes are in units of ζ, that is, in m.

    Within a cell the equation of a line is linear, so that a step is exact for any gain:
    F_out = e^y F_in + S φ1(y), and the mean over the cell is F_in φ1(y) + S φ2(y), with
    y = [(a + e) x - a - l] h and S = s x h.

    Args:
        lines: the K lines.
        widths_m: lengths h of the cells, (M,).
        excitation: x, (M,).
    """

    lines: Lines
    widths_m: Array
    excitation: Array

    def __post_init__(self) -> None:
        lines, x = self.lines, self.excitation
        self.gain = np.multiply.outer(x, lines.gain_slope_per_m)
        self.gain -= lines.absorption_per_m + lines.loss_per_m
        self.nepers = self.gain * self.widths_m[:, None]
        with np.errstate(over="ignore", invalid="ignore"):
            self.grown, self.phi1, self.phi2 = step_functions(self.nepers)
            source = lines.spontaneous_per_m_s / lines.saturation_per_m_s
            self.source = np.multiply.outer(x * self.widths_m, source)
            self._march()
            self.mean = (self.forward[:-1] + self.backward[1:]) * self.phi1
            self.mean += 2 * self.source * self.phi2

    @property
    def is_physical(self) -> bool:
        """Whether all light is finite and, with mirrors, below the threshold of lasing."""
        return bool(np.isfinite(self.mean).all() and (self.round_trip < 1).all())

    def imbalance(self) -> Array:
        """Absorbed minus emitted minus decayed, Σ [a - (a + e) x] F̄ - x, per cell, (M,)."""
        return self.mean @ self.lines.absorption_per_m - self.excitation * self.rate()

    def rate(self) -> Array:
        """1 + Σ (a + e) F̄: how fast a cell's excitation responds, in units of 1/τ, (M,)."""
        return 1 + self.mean @ self.lines.gain_slope_per_m

    def photon_balance(self) -> float:
        """What entered and was emitted, less what left, was lost or decayed, as a share of it.

        It closes to rounding if and only if the excitation solves the steady state.
        """
        lines = self.lines
        entered = (lines.forward_in_per_s + lines.backward_in_per_s) / lines.saturation_per_m_s
        left = self.forward[-1] * (1 - lines.reflectivity_at_end)
        left = left + self.backward[0] * (1 - lines.reflectivity_at_start)
        lost = (self.mean * lines.loss_per_m * self.widths_m[:, None]).sum()
        emitted = 2 * self.source.sum()
        decayed = self.excitation @ self.widths_m
        total = entered.sum() + emitted
        return float(abs(total - left.sum() - lost - decayed) / total)

    def jacobian(self) -> Array:
        """Derivative of :meth:`imbalance` with respect to the excitation, (M, M).

        Light couples a cell to those downstream of it: per line the product of a row and a column
        factor, so that the sum over lines is one matrix product a direction, masked to a triangle.
        """
        lines, h = self.lines, self.widths_m[:, None]
        slope = lines.gain_slope_per_m
        slope1, slope2 = step_derivatives(self.nepers, self.grown, self.phi1, self.phi2)
        weight = lines.absorption_per_m - np.multiply.outer(self.excitation, slope)
        source_slope = (lines.spontaneous_per_m_s / lines.saturation_per_m_s) * h
        inflow = self.forward[:-1] + self.backward[1:]
        within = (inflow * slope1 + 2 * self.source * slope2) * (slope * h)
        within += 2 * source_slope * self.phi2
        matrix = np.diag((weight * within).sum(1) - self.rate())
        read = weight * self.phi1
        grown_slope = self.grown * slope * h
        added = self.source * slope1 * slope * h + source_slope * self.phi1
        forward_kick = grown_slope * self.forward[:-1] + added
        backward_kick = grown_slope * self.backward[1:] + added
        matrix += _downstream(self.nepers, read, forward_kick)
        matrix += _downstream(self.nepers[::-1], read[::-1], backward_kick[::-1])[::-1, ::-1]
        if lines.reflects:
            matrix += self._through_mirrors(read, forward_kick, backward_kick)
        return matrix

    def _through_mirrors(self, read: Array, forward_kick: Array, backward_kick: Array) -> Array:
        """What a cell does to light that a mirror sends back: a change of the inflows."""
        before = np.vstack([np.zeros(self.lines.count), np.cumsum(self.nepers, 0)])
        with np.errstate(over="ignore"):
            forward_out = np.exp(before[-1] - before[1:]) * forward_kick
            backward_out = np.exp(before[:-1]) * backward_kick
            changed_forward, changed_backward = self._inflows(
                np.zeros_like(forward_out), np.zeros_like(forward_out), forward_out, backward_out
            )
            read_forward = read * np.exp(before[:-1])
            read_backward = read * np.exp(before[-1] - before[1:])
        return read_forward @ changed_forward.T + read_backward @ changed_backward.T

    def _march(self) -> None:
        lines = self.lines
        self.through = np.exp(self.nepers.sum(0))  # may be infinite: not physical then
        both = lines.reflectivity_at_start * lines.reflectivity_at_end
        self.round_trip = both * self.through**2
        inputs = np.stack([lines.forward_in_per_s, lines.backward_in_per_s])
        inputs /= lines.saturation_per_m_s
        # Both directions in one march; the backward one meets the cells in reverse.
        grown = np.stack([self.grown, self.grown[::-1]], 1)
        added = self.source * self.phi1
        added = np.stack([added, added[::-1]], 1)
        if lines.reflects:
            dark = _marched(np.zeros_like(inputs), grown, added)[-1]
            inputs = np.stack(self._inflows(*inputs, *dark))
        fluxes = _marched(inputs, grown, added)
        self.forward, self.backward = fluxes[:, 0], fluxes[::-1, 1]

    def _inflows(
        self, forward_in: Array, backward_in: Array, forward_out: Array, backward_out: Array
    ) -> tuple[Array, Array]:
        """Inflows with mirrors, given what enters from outside and what leaves without inflow."""
        start, end = self.lines.reflectivity_at_start, self.lines.reflectivity_at_end
        forward_in = forward_in + start * backward_out
        backward_in = backward_in + end * forward_out
        closed = 1 - self.round_trip
        return (
            (forward_in + start * self.through * backward_in) / closed,
            (backward_in + end * self.through * forward_in) / closed,
        )


def _marched(inflow: Array, grown: Array, added: Array) -> Array:
    """Fluxes at the edges in order of travel, (M + 1, 2, K)."""
    fluxes = np.empty((len(grown) + 1, *inflow.shape))
    fluxes[0] = inflow
    for cell in range(len(grown)):
        np.multiply(grown[cell], fluxes[cell], out=fluxes[cell + 1])
        fluxes[cell + 1] += added[cell]
    return fluxes


def _downstream(nepers: Array, read: Array, kick: Array) -> Array:
    """Σ_k read_jk exp(C_jk - C_(i+1)k) kick_ik for cells i before j, with C the nepers so far."""
    before = np.vstack([np.zeros(nepers.shape[1]), np.cumsum(nepers, 0)])
    middle = (before.max(0) + before.min(0)) / 2
    before -= middle
    deep = np.abs(before).max(0) > _DEEP / 2
    if deep.any():
        return _downstream(nepers[:, ~deep], read[:, ~deep], kick[:, ~deep]) + _recursively(
            nepers[:, deep], read[:, deep], kick[:, deep]
        )
    rows = read * np.exp(before[:-1])
    columns = kick * np.exp(-before[1:])
    return np.tril(rows @ columns.T, -1)


def _recursively(nepers: Array, read: Array, kick: Array) -> Array:
    """The same where the factors would overflow, though no product of them does."""
    cells, count = nepers.shape
    matrix = np.zeros((cells, cells))
    arriving = np.zeros((count, cells))
    for cell in range(cells):
        matrix[cell, :cell] = read[cell] @ arriving[:, :cell]
        arriving[:, :cell] *= np.exp(nepers[cell])[:, None]
        arriving[:, cell] = kick[cell]
    return matrix
