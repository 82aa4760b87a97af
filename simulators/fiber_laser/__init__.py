"""Ytterbium fiber lasers and amplifiers near 1018 nm: a stand-alone simulator.

Needs numpy, scipy and PyYAML; matplotlib for plots. Neither torch nor Lightning.
"""

from lightning_plugins.simulators.fiber_laser.amplifier import (
    Amplifier,
    PhysicalWarning,
    quantum_limit_w,
)
from lightning_plugins.simulators.fiber_laser.amplifier_result import AmplifierResult
from lightning_plugins.simulators.fiber_laser.band import Band, band_over_glasses
from lightning_plugins.simulators.fiber_laser.beam_quality import beam_quality, largest_share
from lightning_plugins.simulators.fiber_laser.cavity import Cavity, Mode
from lightning_plugins.simulators.fiber_laser.chain import (
    BandpassFilter,
    Chain,
    ChainResult,
    Stage,
    flat_seed_ase_w,
)
from lightning_plugins.simulators.fiber_laser.cross_section_table import load_spectroscopy
from lightning_plugins.simulators.fiber_laser.dbr_laser import (
    DbrLaser,
    DbrResult,
    schawlow_townes_hz,
)
from lightning_plugins.simulators.fiber_laser.design import Design, DesignResult, Surroundings
from lightning_plugins.simulators.fiber_laser.design_file import (
    design_from,
    load_design,
    packaged_designs,
)
from lightning_plugins.simulators.fiber_laser.dynamics import Transient, noise_transfer, transient
from lightning_plugins.simulators.fiber_laser.fiber import (
    Fiber,
    ytterbium_from_cladding_absorption,
)
from lightning_plugins.simulators.fiber_laser.gradients import Leaving, gradient
from lightning_plugins.simulators.fiber_laser.grating import Grating
from lightning_plugins.simulators.fiber_laser.light import AseBand, Pump, Reflector, Signal
from lightning_plugins.simulators.fiber_laser.limits import (
    BrillouinThreshold,
    InstabilityMargin,
    brillouin_threshold,
    core_heating_k,
    instability_margin,
)
from lightning_plugins.simulators.fiber_laser.linewidth import (
    FrequencyNoise,
    amplifier_noise,
    flicker_for_linewidth,
)
from lightning_plugins.simulators.fiber_laser.optimize import (
    Optimum,
    chain_gradient,
    inverse_design,
    optimum_length_m,
)
from lightning_plugins.simulators.fiber_laser.relaxation import (
    Relaxation,
    pump_noise_transfer,
    relaxation,
)
from lightning_plugins.simulators.fiber_laser.reproduction import Row, reproduce
from lightning_plugins.simulators.fiber_laser.self_heterodyne import self_heterodyne_spectrum
from lightning_plugins.simulators.fiber_laser.spectroscopy import McCumberFit, Spectroscopy
from lightning_plugins.simulators.fiber_laser.steady_state import ConvergenceError
from lightning_plugins.simulators.fiber_laser.storage import load_result, save_result
from lightning_plugins.simulators.fiber_laser.sweep import sweep
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
    "Band",
    "BandpassFilter",
    "BrillouinThreshold",
    "Cavity",
    "Chain",
    "ChainResult",
    "ConvergenceError",
    "DbrLaser",
    "DbrResult",
    "Design",
    "DesignResult",
    "Fiber",
    "FiberMount",
    "FrequencyNoise",
    "Grating",
    "InstabilityMargin",
    "Leaving",
    "McCumberFit",
    "Mode",
    "Optimum",
    "PhysicalWarning",
    "Pump",
    "Reflector",
    "Relaxation",
    "Row",
    "Signal",
    "Spectroscopy",
    "Stage",
    "Surroundings",
    "Transient",
    "TuningCurve",
    "amplifier_noise",
    "band_over_glasses",
    "beam_quality",
    "brillouin_threshold",
    "chain_gradient",
    "core_heating_k",
    "design_from",
    "flat_seed_ase_w",
    "flicker_for_linewidth",
    "gradient",
    "instability_margin",
    "inverse_design",
    "largest_share",
    "load_design",
    "load_result",
    "load_spectroscopy",
    "noise_transfer",
    "optimum_length_m",
    "packaged_designs",
    "pump_noise_transfer",
    "quantum_limit_w",
    "relaxation",
    "reproduce",
    "save_result",
    "schawlow_townes_hz",
    "self_heterodyne_spectrum",
    "sweep",
    "transient",
    "tuning_curve",
    "ytterbium",
    "ytterbium_band",
    "ytterbium_from_cladding_absorption",
]
