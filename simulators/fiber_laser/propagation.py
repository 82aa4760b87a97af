"""Light through a fiber with a given excitation: all lines, both directions, exact steps."""

from dataclasses import dataclass
from functools import cached_property
from math import factorial

import numpy as np
from numpy.typing import NDArray

from .quantities import Array

_SERIES_BELOW = 0.02
_TERMS = 7
_DEEP = 600.0  # nepers from end to end; e^±x of half of it is far from overflow


@dataclass(frozen=True, eq=False)
class Lines:
    """K spectral lines in both directions of one fiber, in the parameters of Giles and Desurvire.

    Light is counted in photons. With x the fraction of excited ions, a line of photon flux F obeys
    ±dF/dz = [(a + e) x - a - l] F + s x, and the ions ζ x = Σ [a - (a + e) x] F over all lines and
    both directions (Giles and Desurvire, J. Lightwave Technol. 9, 271 (1991)).

    Args:
        absorption_per_m: a = Γ N σa, (K,), or (M, K) if it differs between M cells.
        emission_per_m: e = Γ N σe, (K,) or (M, K).
        loss_per_m: l, background loss, which excites no ions, (K,).
        spontaneous_per_m_s: s = e m Δν, photons that a fully excited fiber emits per m and s, in
            each direction, into m polarisations of a bin of width Δν, (K,) or (M, K). Zero for a
            signal.
        forward_in_per_s: Photon flux that enters at z = 0, (K,).
        backward_in_per_s: Photon flux that enters at z = L, (K,).
        reflectivity_at_start: Reflected fraction of the backward light at z = 0, (K,).
        reflectivity_at_end: Reflected fraction of the forward light at z = L, (K,).
        saturation_per_m_s: ζ = A N / τ, decays per m and s of a fully excited fiber.
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
        """The number of lines K."""
        return self.loss_per_m.size

    @property
    def gain_slope_per_m(self) -> Array:
        """a + e: change of a line's gain with the fraction of excited ions, (K,) or (M, K)."""
        return self.absorption_per_m + self.emission_per_m

    @property
    def is_spontaneous(self) -> NDArray[np.bool_]:
        """Lines with spontaneous emission, (K,)."""
        return np.atleast_2d(self.spontaneous_per_m_s)[0] > 0

    @property
    def reflects(self) -> bool:
        """Whether an end reflects any line."""
        return bool(np.any(self.reflectivity_at_start) or np.any(self.reflectivity_at_end))

    @cached_property
    def circulates(self) -> NDArray[np.bool_]:
        """Lines that both ends reflect and that ions can amplify: they may lase, (K,)."""
        reflected = (self.reflectivity_at_start > 0) & (self.reflectivity_at_end > 0)
        seeded = self.is_spontaneous | (self.forward_in_per_s + self.backward_in_per_s > 0)
        return reflected & seeded & (np.atleast_2d(self.emission_per_m)[0] > 0)


def step_functions(y: Array) -> tuple[Array, Array, Array]:
    """Return e^y, φ1(y) = (e^y - 1)/y and φ2(y) = (e^y - 1 - y)/y², accurate also near zero."""
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
    """Return φ1'(y) and φ2'(y), given e^y, φ1 and φ2."""
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
    """K lines through M cells of constant excitation x; fluxes are divided by ζ and have unit m.

    Within a cell the equation of a line is linear, so a step is exact for any gain:
    F_out = e^y F_in + S φ1(y), and the mean over the cell is F_in φ1(y) + S φ2(y), with
    y = [(a + e) x - a - l] h and S = s x h.

    Args:
        lines: The K lines.
        widths_m: Lengths h of the cells, (M,).
        excitation: Fractions x of excited ions, (M,).
        circulating: Forward fluxes at z = 0 of the C lines of ``lines.circulates``, as unknowns of
            their own. Near the lasing threshold they cannot be computed from the excitation: a
            closed round trip divides by 1 - (round-trip gain), which is smaller than rounding.
            None computes them so, which is valid below threshold.
    """

    lines: Lines
    widths_m: Array
    excitation: Array
    circulating: Array | None = None

    def __post_init__(self) -> None:
        lines, x = self.lines, self.excitation
        self.gain = x[:, None] * lines.gain_slope_per_m
        self.gain -= lines.absorption_per_m + lines.loss_per_m
        self.nepers = self.gain * self.widths_m[:, None]
        with np.errstate(over="ignore", invalid="ignore"):
            self.grown, self.phi1, self.phi2 = step_functions(self.nepers)
            source = lines.spontaneous_per_m_s / lines.saturation_per_m_s
            self.source = (x * self.widths_m)[:, None] * source
            self._march()
            self.mean = (self.forward[:-1] + self.backward[1:]) * self.phi1
            self.mean += 2 * self.source * self.phi2

    @property
    def is_physical(self) -> bool:
        """Whether all light is finite and positive: each closed round-trip gain is below 1."""
        return bool(np.isfinite(self.mean).all() and (self.closed > 0).all())

    @property
    def explicit(self) -> NDArray[np.bool_]:
        """Lines with a circulating flux as an unknown, (K,)."""
        if self.circulating is None:
            return np.zeros(self.lines.count, dtype=bool)
        return self.lines.circulates

    def closing_error(self, injection: float = 0.0) -> Array:
        """Return 1 - (flux after a round trip) / (circulating flux), (C,).

        Args:
            injection: Flux added at z = 0 to each circulating line.
        """
        assert self.circulating is not None
        lines, at = self.lines, self.explicit
        entering = lines.forward_in_per_s[at] / lines.saturation_per_m_s + injection
        returned = lines.reflectivity_at_start[at] * self.backward[0, at]
        return 1 - (entering + returned) / self.circulating

    def imbalance(self) -> Array:
        """Return absorption - emission - decay, Σ [a - (a + e) x] F̄ - x, per cell, (M,)."""
        return self.absorbed() - self.excitation * self.rate()

    def absorbed(self) -> Array:
        """Return Σ a F̄ of each cell in units of 1/τ, (M,)."""
        return _summed(self.mean, self.lines.absorption_per_m)

    def rate(self) -> Array:
        """Return the response rate 1 + Σ (a + e) F̄ of each cell in units of 1/τ, (M,)."""
        return 1 + _summed(self.mean, self.lines.gain_slope_per_m)

    def photon_balance(self) -> float:
        """Return the relative photon balance: entered and emitted minus left, lost and decayed.

        It vanishes to rounding if and only if the excitation solves the steady state.
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
        """Return the derivative of :meth:`imbalance` with respect to the excitation, (M, M).

        With circulating fluxes it is the derivative of imbalance and :meth:`closing_error` with
        respect to the excitation and the logarithms of these fluxes, (M + C, M + C).

        A cell affects the cells downstream. For each line this is the product of a row factor and
        a column factor, so the sum over lines is one triangular matrix product per direction.
        """
        lines, h = self.lines, self.widths_m[:, None]
        slope = lines.gain_slope_per_m
        slope1, slope2 = step_derivatives(self.nepers, self.grown, self.phi1, self.phi2)
        weight = lines.absorption_per_m - self.excitation[:, None] * slope
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
        if self.circulating is not None:
            return self._with_closing(matrix, read, forward_kick, backward_kick)
        return matrix

    def _with_closing(
        self, matrix: Array, read: Array, forward_kick: Array, backward_kick: Array
    ) -> Array:
        """Return the Jacobian extended by the circulating fluxes and their closing errors."""
        lines, at, flux = self.lines, self.explicit, self.circulating
        assert flux is not None
        end = lines.reflectivity_at_end[at] * self.through[at]
        before = np.vstack([np.zeros(len(flux)), np.cumsum(self.nepers[:, at], 0)])
        with np.errstate(over="ignore"):
            rest = np.exp(before[-1] - before[1:])
            ahead = np.exp(before[:-1])
            by_flux = read[:, at] * (ahead + rest * end) * flux
            returned = ahead * backward_kick[:, at] + rest * end * forward_kick[:, at]
        by_excitation = -(lines.reflectivity_at_start[at] * returned / flux).T
        return np.block([[matrix, by_flux], [by_excitation, np.diag(1 - self.round_trip[at])]])

    def _through_mirrors(self, read: Array, forward_kick: Array, backward_kick: Array) -> Array:
        """Return the part of the Jacobian by reflected light, which changes the inflows."""
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
        self.start = lines.reflectivity_at_start
        both = self.start * lines.reflectivity_at_end
        self.round_trip = both * self.through**2
        inputs = np.stack([lines.forward_in_per_s, lines.backward_in_per_s])
        inputs /= lines.saturation_per_m_s
        self.closed = 1 - self.round_trip
        if self.circulating is not None:  # their round trip is cut at z = 0
            self.start = np.where(self.explicit, 0.0, self.start)
            self.closed = np.where(self.explicit, 1.0, self.closed)
            inputs[0, self.explicit] = self.circulating
        # Both directions in one pass; the backward one meets the cells in reverse order.
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
        """Return the inflows with mirrors, from the inputs and the outflows without inflow."""
        start, end = self.start, self.lines.reflectivity_at_end
        forward_in = forward_in + start * backward_out
        backward_in = backward_in + end * forward_out
        return (
            (forward_in + start * self.through * backward_in) / self.closed,
            (backward_in + end * self.through * forward_in) / self.closed,
        )


def _summed(mean: Array, factor: Array) -> Array:
    """Return Σ_k mean_jk factor_k, or factor_jk if it differs between cells, (M,)."""
    return mean @ factor if factor.ndim == 1 else np.einsum("jk,jk->j", mean, factor)


def _marched(inflow: Array, grown: Array, added: Array) -> Array:
    """Return the fluxes at the cell edges in order of travel, (M + 1, 2, K)."""
    fluxes = np.empty((len(grown) + 1, *inflow.shape))
    fluxes[0] = inflow
    for cell in range(len(grown)):
        np.multiply(grown[cell], fluxes[cell], out=fluxes[cell + 1])
        fluxes[cell + 1] += added[cell]
    return fluxes


def _downstream(nepers: Array, read: Array, kick: Array) -> Array:
    """Σ_k read_jk exp(C_jk - C_(i+1)k) kick_ik for cells i before j, with C the cumulative gain."""
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
    """Return the same sum without factors that would overflow."""
    cells, count = nepers.shape
    matrix = np.zeros((cells, cells))
    arriving = np.zeros((count, cells))
    for cell in range(cells):
        matrix[cell, :cell] = read[cell] @ arriving[:, :cell]
        arriving[:, :cell] *= np.exp(nepers[cell])[:, None]
        arriving[:, cell] = kick[cell]
    return matrix
