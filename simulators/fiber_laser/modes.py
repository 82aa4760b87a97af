"""LP modes of a step-index fiber: fields, overlaps, effective areas, bend loss.

The scalar modes of Gloge, Appl. Opt. 10, 2252 (1971). Radii are in units of the core radius.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import jn_zeros, jv, kve  # type: ignore[import-untyped]

from .quantities import Array

_NEWTON_STEPS = 30
_BISECTIONS = 14
_NODES = 96
_DECAY = 12.0  # the fourth power of the field is negligible where w (r - 1) exceeds this
_BENT_RADIUS_FACTOR = 1.28


@dataclass(frozen=True, eq=False)
class Mode:
    """A mode at several V numbers: u² + w² = V², u J_{l+1}(u)/J_l(u) = w K_{l+1}(w)/K_l(w).

    Args:
        order: Angular order l.
        u: Transverse wavenumbers in the core, (n,).
        w: Decay constants in the cladding, (n,).
    """

    order: int
    u: Array
    w: Array

    def power_within(self, radius: float) -> Array:
        """Return the fraction of the power within a radius, (n,).

        ∫ J_l² r dr and ∫ K_l² r dr are closed forms (Lommel's integrals).
        """
        inside, outside = self._core_integral(min(radius, 1.0)), self._cladding_integral(1.0)
        total = self._core_integral(1.0) + outside
        if radius > 1:
            inside = total - self._cladding_integral(radius)
        return inside / total

    def effective_area(self) -> Array:
        """Return (∫ I dA)² / ∫ I² dA in units of the squared core radius, (n,)."""
        nodes, weights = quadrature()
        inside = (jv(self.order, np.multiply.outer(self.u, nodes)).T / jv(self.order, self.u)) ** 4
        fourth = (nodes * weights) @ inside
        # In the cladding r = exp(s), since the field varies over decades of r near cut-off.
        last = np.log1p(_DECAY / self.w)
        radius = np.exp(np.multiply.outer(nodes, last))
        fourth = fourth + (weights @ (self.cladding_field(radius) ** 4 * radius**2) * last)
        square = self._core_integral(1.0) + self._cladding_integral(1.0)
        angular = 2 * np.pi if self.order == 0 else 4 * np.pi / 3
        return angular * square**2 / fourth

    def cladding_field(self, radius: Array) -> Array:
        """Return the field at radii of at least 1, relative to the field at the interface."""
        decay = np.exp(-self.w * (radius - 1))
        return kve(self.order, self.w * radius) / kve(self.order, self.w) * decay

    def bend_loss_per_m(
        self, core_radius_m: float, beta_per_m: Array, bend_radius_m: float
    ) -> Array:
        """Return the power loss in a bend in 1/m, (n,).

        Marcuse, J. Opt. Soc. Am. 66, 216 (1976), with the radius multiplied by 1.28 for the
        elasto-optic change of silica (Schermer and Cole, IEEE J. Quantum Electron. 43, 899 (2007)).

        Args:
            core_radius_m: Core radius in m.
            beta_per_m: Propagation constants in 1/m, (n,).
            bend_radius_m: Bend radius in m.
        """
        kappa, gamma = self.u / core_radius_m, self.w / core_radius_m
        radius = _BENT_RADIUS_FACTOR * bend_radius_m
        v_squared = self.u**2 + self.w**2
        twice = 2.0 if self.order == 0 else 1.0
        # kve contains exp(w) for each of the two K.
        exponent = 2 * self.w - 2 * gamma**3 * radius / (3 * beta_per_m**2)
        edge = kve(self.order - 1, self.w) * kve(self.order + 1, self.w)
        scale = twice * gamma**1.5 * v_squared * np.sqrt(radius) * edge
        return np.asarray(np.sqrt(np.pi) * kappa**2 * np.exp(exponent) / scale)

    def _core_integral(self, radius: float) -> Array:
        """Return ∫ ψ² r dr within a radius of the core, with ψ = 1 at the interface."""
        argument = self.u * radius
        squares = jv(self.order, argument) ** 2
        squares = squares - jv(self.order - 1, argument) * jv(self.order + 1, argument)
        return radius**2 / 2 * squares / jv(self.order, self.u) ** 2

    def _cladding_integral(self, radius: float) -> Array:
        """Return ∫ ψ² r dr outside a radius of the cladding."""
        argument = self.w * radius
        squares = kve(self.order - 1, argument) * kve(self.order + 1, argument)
        squares = squares - kve(self.order, argument) ** 2
        decay = np.exp(-2 * self.w * (radius - 1))
        return radius**2 / 2 * squares * decay / kve(self.order, self.w) ** 2


@lru_cache(maxsize=1)
def quadrature() -> tuple[Array, Array]:
    """Return nodes and weights of Gauss and Legendre's rule from 0 to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return (nodes + 1) / 2, weights / 2


def mode_at(name: str, v_number: Array) -> Mode:
    """Return an LP mode at V numbers, (n,).

    Raises:
        ValueError: The name is not LP and two digits, or the core does not guide the mode.
    """
    v = np.atleast_1d(np.asarray(v_number, dtype=float))
    return _cached_mode(name, v.tobytes())


@lru_cache(maxsize=64)
def _cached_mode(name: str, v_bytes: bytes) -> Mode:
    if len(name) != 4 or name[:2] != "LP" or not name[2:].isdigit() or name[3] == "0":
        raise ValueError(f"mode {name!r}: expected LP and two digits such as LP01 or LP11")
    order, radial, v = int(name[2]), int(name[3]), np.frombuffer(v_bytes)
    # u lies between the zeros of J_{l-1} (cut-off) and J_l.
    cutoffs = np.append(0.0, jn_zeros(1, radial)) if order == 0 else jn_zeros(order - 1, radial)
    low, high = cutoffs[radial - 1], np.minimum(jn_zeros(order, radial)[-1], v)
    if v.min() <= low:
        raise ValueError(
            f"mode {name!r}: the core guides it from V = {low:.3f} on, and V = {v.min():.3f} here"
        )
    u = _solved(order, v, np.full(v.size, low), high)
    return Mode(order, u, np.sqrt(v**2 - u**2))


def _solved(order: int, v: Array, low: Array, high: Array) -> Array:
    """Return u by bisection and Newton steps on f = u J_{l+1}/J_l - w K_{l+1}/K_l.

    LP01 starts at Gloge's approximation, others after some bisections.
    """
    if order == 0 and low[0] == 0:
        u = np.minimum((1 + np.sqrt(2)) * v / (1 + (4 + v**4) ** 0.25), 0.999 * high)
    else:
        for _ in range(_BISECTIONS):
            u = (low + high) / 2
            below = _mismatch(order, u, v)[0] < 0
            low, high = np.where(below, u, low), np.where(below, high, u)
        u = (low + high) / 2
    for _ in range(_NEWTON_STEPS):
        value, slope = _mismatch(order, u, v)
        low, high = np.where(value < 0, u, low), np.where(value < 0, high, u)
        change = -value / slope
        small = np.abs(change) <= 1e-12 * u  # rounding may have moved the root out of the bracket
        inside = (u + change > low) & (u + change < high)
        u = np.where(small | inside, u + change, (low + high) / 2)
        if small.all():
            break
    return u


def _mismatch(order: int, u: Array, v: Array) -> tuple[Array, Array]:
    w = np.sqrt(np.maximum(v**2 - u**2, 1e-300))
    r = jv(order + 1, u) / jv(order, u)
    q = kve(order + 1, w) / kve(order, w)
    slope = u - 2 * order * r + u * r**2 + u / w * (-w - 2 * order * q + w * q**2)
    return u * r - w * q, slope
