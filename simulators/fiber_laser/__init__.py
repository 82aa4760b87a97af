"""Ytterbium fiber lasers and amplifiers near 1018 nm: a stand-alone simulator.

Needs numpy, scipy and PyYAML; matplotlib for plots. Neither torch nor Lightning.
"""

from lightning_plugins.simulators.fiber_laser.amplifier import (
    Amplifier,
    PhysicalWarning,
    quantum_limit_w,
)
from lightning_plugins.simulators.fiber_laser.amplifier_result import AmplifierResult
from lightning_plugins.simulators.fiber_laser.cross_section_table import load_spectroscopy
from lightning_plugins.simulators.fiber_laser.fiber import (
    Fiber,
    ytterbium_from_cladding_absorption,
)
from lightning_plugins.simulators.fiber_laser.light import AseBand, Pump, Reflector, Signal
from lightning_plugins.simulators.fiber_laser.spectroscopy import McCumberFit, Spectroscopy
from lightning_plugins.simulators.fiber_laser.steady_state import ConvergenceError
from lightning_plugins.simulators.fiber_laser.ytterbium import (
    YTTERBIUM_GLASSES,
    ytterbium,
    ytterbium_band,
)

__all__ = [
    "YTTERBIUM_GLASSES",
    "Amplifier",
    "AmplifierResult",
    "AseBand",
    "ConvergenceError",
    "Fiber",
    "McCumberFit",
    "PhysicalWarning",
    "Pump",
    "Reflector",
    "Signal",
    "Spectroscopy",
    "load_spectroscopy",
    "quantum_limit_w",
    "ytterbium",
    "ytterbium_band",
    "ytterbium_from_cladding_absorption",
]
