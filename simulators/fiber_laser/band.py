"""What a figure may be, given that the cross-sections of a fiber are hardly ever known."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from lightning_plugins.simulators.fiber_laser.amplifier import Amplifier, PhysicalWarning
from lightning_plugins.simulators.fiber_laser.chain import Chain
from lightning_plugins.simulators.fiber_laser.design import Design
from lightning_plugins.simulators.fiber_laser.spectroscopy import Spectroscopy
from lightning_plugins.simulators.fiber_laser.sweep import Figures, summary
from lightning_plugins.simulators.fiber_laser.ytterbium import ytterbium_band

_Simulated = TypeVar("_Simulated", Amplifier, Chain, Design)


@dataclass(frozen=True)
class Band:
    """A figure over several spectroscopies.

    Args:
        by_glass: its value for each, by the spectroscopy's name.
    """

    by_glass: dict[str, float]

    @property
    def low(self) -> float:
        """The smallest value."""
        return min(self.by_glass.values())

    @property
    def high(self) -> float:
        """The largest value."""
        return max(self.by_glass.values())


def band_over_glasses(
    design: _Simulated,
    figures: Callable[[Any], Figures] = summary,
    glasses: Sequence[Spectroscopy] | None = None,
) -> dict[str, Band]:
    """Every figure of a design over several spectroscopies: its uncertainty from cross-sections.

    Args:
        design: an amplifier, a chain, or a design, whose seed laser gets the glass as well.
        figures: what to keep of a result.
        glasses: spectroscopies of different names; default: the five parametric ones, at the
            temperature and with the lifetime of the design's.

    Raises:
        ConvergenceError: a steady state was not found.
    """
    if glasses is None:
        own = (design.chain if isinstance(design, Design) else design).spectroscopy
        glasses = [one.at_temperature(own.temperature_k) for one in ytterbium_band(own.lifetime_s)]
    names = [glass.name for glass in glasses]
    if len(set(names)) != len(names) or not names:
        raise ValueError(f"glasses: expected spectroscopies of different names, got {names}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhysicalWarning)
        found = [figures(with_glass(design, glass).solve()) for glass in glasses]
    return {
        figure: Band({name: one[figure] for name, one in zip(names, found, strict=True)})
        for figure in found[0]
    }


def with_glass(design: _Simulated, glass: Spectroscopy) -> _Simulated:
    """The design in another glass."""
    if not isinstance(design, Design):
        return replace(design, spectroscopy=glass)
    laser = design.seed_laser
    if laser is not None:
        laser = replace(laser, spectroscopy=glass)
    return replace(design, seed_laser=laser, chain=replace(design.chain, spectroscopy=glass))
