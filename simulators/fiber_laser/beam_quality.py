"""Beam quality M² of a mixture of the modes of a step-index fiber."""

from collections.abc import Mapping

import numpy as np
from scipy.optimize import brentq  # type: ignore[import-untyped]
from scipy.special import jn_zeros, jv, kv  # type: ignore[import-untyped]

from .fiber import Fiber

_RADII = 6.0
_SAMPLES = 4001


def beam_quality(fiber: Fiber, wavelength_nm: float, content: Mapping[str, float]) -> float:
    """M² along the lobes of an incoherent mixture of modes.

    M² = 2 √(⟨x²⟩ ⟨k_x²⟩) with both moments averaged over the content, from the exact scalar modes
    of the step-index core (Siegman's second-moment definition; Gaussian: 1). Modes that interfere
    coherently move the beam about, which this does not count.

    Args:
        fiber: gives core and aperture.
        wavelength_nm: in nm.
        content: share of the power of each mode, for example ``{"LP01": 0.9, "LP11": 0.1}``.

    Raises:
        ValueError: shares that do not add up to 1, a mode that the core does not guide.
    """
    if min(content.values()) < 0 or abs(sum(content.values()) - 1) > 1e-6:
        raise ValueError(f"content = {dict(content)}: the shares must be positive and add up to 1")
    position, momentum = 0.0, 0.0
    for name, share in content.items():
        of_mode = _moments(fiber, wavelength_nm, name)
        position += share * of_mode[0]
        momentum += share * of_mode[1]
    return float(2 * np.sqrt(position * momentum))


def largest_share(
    fiber: Fiber, wavelength_nm: float, beam_quality_limit: float, mode: str = "LP11"
) -> float:
    """Share of a higher mode beside LP01 at which M² is a limit; 1 if it never is."""

    def excess(share: float) -> float:
        content = {"LP01": 1 - share, mode: share}
        return beam_quality(fiber, wavelength_nm, content) - beam_quality_limit

    if excess(0.0) > 0:
        raise ValueError(
            f"beam_quality_limit = {beam_quality_limit:g}: LP01 alone has "
            f"{excess(0.0) + beam_quality_limit:.3f}"
        )
    return float(brentq(excess, 0.0, 1.0)) if excess(1.0) > 0 else 1.0


def _moments(fiber: Fiber, wavelength_nm: float, name: str) -> tuple[float, float]:
    """⟨x²⟩ in units of the core radius, squared, and ⟨k_x²⟩ in the inverse, along the lobes."""
    angular, u, w = _mode(fiber, wavelength_nm, name)
    radius = np.linspace(1e-6, 1 + _RADII / min(w, 1.0) * 2, _SAMPLES)
    inside = jv(angular, u * radius) / jv(angular, u)
    outside = kv(angular, w * radius) / kv(angular, w)
    field = np.where(radius <= 1, inside, outside)
    slope = np.gradient(field, radius)
    # Averages of cos² and the like over the angle, for fields that go as cos(lφ).
    if angular == 0:
        norm = _integral(field**2 * radius, radius)
        return (
            _integral(field**2 * radius**3, radius) / 2 / norm,
            _integral(slope**2 * radius, radius) / 2 / norm,
        )
    # ⟨cos²φ cos²lφ⟩ = ⟨sin²φ sin²lφ⟩ is 3/8 for two lobes and 1/4 for more; ⟨cos²lφ⟩ is 1/2.
    square, mixed = (0.375, 0.125) if angular == 1 else (0.25, 0.0)
    norm = _integral(field**2 * radius, radius) / 2
    turning = angular * field / radius
    steepness = square * (slope**2 + turning**2) + 2 * mixed * slope * turning
    return (
        _integral(field**2 * radius**3, radius) * square / norm,
        _integral(steepness * radius, radius) / norm,
    )


def _mode(fiber: Fiber, wavelength_nm: float, name: str) -> tuple[int, float, float]:
    """Angular order, and u, w of LP_lm: u J_{l+1}(u)/J_l(u) = w K_{l+1}(w)/K_l(w), u² + w² = V²."""
    if len(name) != 4 or name[:2] != "LP" or not name[2:].isdigit() or name[3] == "0":
        raise ValueError(f"mode {name!r}: expected LP and two digits such as LP01 or LP11")
    angular, radial = int(name[2]), int(name[3])
    v = float(fiber.v_number(wavelength_nm))
    # u lies between the zeros of J_{l-1} (cut-off) and J_l.
    if angular == 0:
        cutoffs = np.append([0.0], jn_zeros(1, radial))
    else:
        cutoffs = jn_zeros(angular - 1, radial)
    low, high = cutoffs[radial - 1], min(jn_zeros(angular, radial)[-1], v)
    if v <= low:
        raise ValueError(
            f"mode {name!r}: the core guides it from V = {low:.3f} on, and V = {v:.3f} at "
            f"{wavelength_nm:g} nm"
        )

    def mismatch(u: float) -> float:
        w = np.sqrt(max(v**2 - u**2, 1e-20))
        return float(
            u * jv(angular + 1, u) * kv(angular, w) - w * kv(angular + 1, w) * jv(angular, u)
        )

    u = float(brentq(mismatch, low + 1e-9, high - 1e-9))
    return angular, u, float(np.sqrt(v**2 - u**2))


def _integral(values: np.ndarray, radius: np.ndarray) -> float:
    return float(np.trapezoid(values, radius))
