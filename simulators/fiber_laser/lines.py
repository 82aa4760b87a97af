"""The optical channels of a fiber as arrays: what the solver works on."""

from dataclasses import dataclass

import numpy as np

from lightning_plugins.simulators.fiber_laser.spectroscopy import Array


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
