"""Beam quality M² of a mixture of the modes of a step-index fiber."""

from collections.abc import Mapping

import numpy as np
from scipy.optimize import brentq  # type: ignore[import-untyped]
from scipy.special import jv, kv  # type: ignore[import-untyped]

from .fiber import Fiber
from .modes import Mode, quadrature

_DECAY = 24.0  # the square of the field is negligible where w (r - 1) exceeds this


def beam_quality(fiber: Fiber, wavelength_nm: float, content: Mapping[str, float]) -> float:
    """Return M² along the lobes of an incoherent mixture of modes.

    M² = 2 √(⟨x²⟩ ⟨k_x²⟩) with both moments averaged over the content (Siegman's second-moment
    definition; a Gaussian beam has 1). Coherent interference of modes, which moves the beam, is not
    included.

    Args:
        fiber: The fiber; its core and aperture count.
        wavelength_nm: Wavelength in nm.
        content: Fraction of the power in each mode, for example ``{"LP01": 0.9, "LP11": 0.1}``.

    Raises:
        ValueError: The fractions do not add up to 1, or the core does not guide a mode.
    """
    if min(content.values()) < 0 or abs(sum(content.values()) - 1) > 1e-6:
        raise ValueError(f"content = {dict(content)}: the shares must be positive and add up to 1")
    position, momentum = 0.0, 0.0
    for name, share in content.items():
        of_mode = _moments(fiber.mode(wavelength_nm, name))
        position += share * of_mode[0]
        momentum += share * of_mode[1]
    return float(2 * np.sqrt(position * momentum))


def largest_share(
    fiber: Fiber, wavelength_nm: float, beam_quality_limit: float, mode: str = "LP11"
) -> float:
    """Return the fraction in a higher mode, next to LP01, at which M² reaches a limit."""

    def excess(share: float) -> float:
        content = {"LP01": 1 - share, mode: share}
        return beam_quality(fiber, wavelength_nm, content) - beam_quality_limit

    if excess(0.0) > 0:
        raise ValueError(
            f"beam_quality_limit = {beam_quality_limit:g}: LP01 alone has "
            f"{excess(0.0) + beam_quality_limit:.3f}"
        )
    return float(brentq(excess, 0.0, 1.0)) if excess(1.0) > 0 else 1.0


def _moments(mode: Mode) -> tuple[float, float]:
    """Return ⟨x²⟩ and ⟨k_x²⟩ along the lobes, in units of the core radius."""
    order, u, w = mode.order, float(mode.u[0]), float(mode.w[0])
    core, weights = quadrature()
    last = np.log1p(_DECAY / w)
    outside = np.exp(core * last)
    radius = np.append(core, outside)
    weight = np.append(weights * core, weights * outside**2 * last)
    field = np.append(jv(order, u * core) / jv(order, u), kv(order, w * outside) / kv(order, w))
    slope = np.append(
        u * (jv(order - 1, u * core) - jv(order + 1, u * core)) / 2 / jv(order, u),
        -w * (kv(order - 1, w * outside) + kv(order + 1, w * outside)) / 2 / kv(order, w),
    )
    # Averages of cos² and the like over the angle, for fields proportional to cos(lφ).
    if order == 0:
        norm = weight @ field**2
        return (weight @ (field * radius) ** 2 / 2 / norm, weight @ slope**2 / 2 / norm)
    # ⟨cos²φ cos²lφ⟩ = ⟨sin²φ sin²lφ⟩ is 3/8 for two lobes and 1/4 for more; ⟨cos²lφ⟩ is 1/2.
    square, mixed = (0.375, 0.125) if order == 1 else (0.25, 0.0)
    norm = weight @ field**2 / 2
    turning = order * field / radius
    steepness = square * (slope**2 + turning**2) + 2 * mixed * slope * turning
    return (weight @ (field * radius) ** 2 * square / norm, weight @ steepness / norm)
