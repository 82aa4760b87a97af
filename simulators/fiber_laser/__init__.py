"""Ytterbium fiber lasers and amplifiers near 1018 nm: a stand-alone simulator.

Needs numpy, scipy and PyYAML; matplotlib for plots. Neither torch nor Lightning.
"""

from lightning_plugins.simulators.fiber_laser.amplifier import (
    Amplifier,
    PhysicalWarning,
    quantum_limit_w,
)
from lightning_plugins.simulators.fiber_laser.amplifier_result import AmplifierResult
from lightning_plugins.simulators.fiber_laser.cavity import Cavity, Mode
from lightning_plugins.simulators.fiber_laser.cross_section_table import load_spectroscopy
from lightning_plugins.simulators.fiber_laser.dbr_laser import (
    DbrLaser,
    DbrResult,
    schawlow_townes_hz,
)
from lightning_plugins.simulators.fiber_laser.fiber import (
    Fiber,
    ytterbium_from_cladding_absorption,
)
from lightning_plugins.simulators.fiber_laser.grating import Grating
from lightning_plugins.simulators.fiber_laser.light import AseBand, Pump, Reflector, Signal
from lightning_plugins.simulators.fiber_laser.linewidth import (
    FrequencyNoise,
    amplifier_noise,
    flicker_for_linewidth,
)
from lightning_plugins.simulators.fiber_laser.self_heterodyne import self_heterodyne_spectrum
from lightning_plugins.simulators.fiber_laser.spectroscopy import McCumberFit, Spectroscopy
from lightning_plugins.simulators.fiber_laser.steady_state import ConvergenceError
from lightning_plugins.simulators.fiber_laser.tuning import (
    FiberMount,
    TuningCurve,
    tuning_curve,
)
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
    "Cavity",
    "ConvergenceError",
    "DbrLaser",
    "DbrResult",
    "Fiber",
    "FiberMount",
    "FrequencyNoise",
    "Grating",
    "McCumberFit",
    "Mode",
    "PhysicalWarning",
    "Pump",
    "Reflector",
    "Signal",
    "Spectroscopy",
    "TuningCurve",
    "amplifier_noise",
    "flicker_for_linewidth",
    "load_spectroscopy",
    "quantum_limit_w",
    "schawlow_townes_hz",
    "self_heterodyne_spectrum",
    "tuning_curve",
    "ytterbium",
    "ytterbium_band",
    "ytterbium_from_cladding_absorption",
]
