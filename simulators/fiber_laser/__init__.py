"""A stand-alone simulator of ytterbium fiber lasers and amplifiers.

It requires numpy, scipy and PyYAML, and matplotlib for plots. It uses neither torch nor Lightning.
"""

from .amplifier import (
    Amplifier,
    PhysicalWarning,
    quantum_limit_w,
)
from .amplifier_result import AmplifierResult
from .beam_quality import beam_quality, largest_share
from .chain import (
    BandpassFilter,
    Chain,
    ChainResult,
    Stage,
    flat_seed_ase_w,
)
from .constrained_design import ConstrainedOptimum, Limits, constrained_design
from .cross_section_files import load_spectroscopy
from .dbr_cavity import Cavity, Grating, Mode
from .dbr_laser import (
    DbrLaser,
    DbrResult,
    schawlow_townes_hz,
)
from .design import Design, DesignResult, Surroundings
from .design_file import (
    design_from,
    load_design,
    packaged_designs,
)
from .dynamics import (
    Relaxation,
    Transient,
    noise_transfer,
    pump_noise_transfer,
    relaxation,
    transient,
)
from .fiber import (
    Fiber,
    ytterbium_from_cladding_absorption,
)
from .gradients import Leaving, gradient
from .identification import Curve, Estimate, Identified, identify
from .light import AseBand, Pump, Reflector, Signal
from .linewidth import (
    FrequencyNoise,
    amplifier_noise,
    flicker_for_linewidth,
    self_heterodyne_spectrum,
)
from .nonlinear_limits import (
    BrillouinThreshold,
    StokesWave,
    brillouin_stokes,
    brillouin_threshold,
    four_wave_mixing_share,
    nonlinear_phase_rad,
    raman_stokes,
    raman_threshold_w,
)
from .optimize import (
    Optimum,
    chain_gradient,
    inverse_design,
    optimum_length_m,
)
from .pulses import Pulse, PulsedResult, pulsed
from .reproduction import Row, reproduce
from .result_files import load_result, save_result
from .self_heating import Cooling
from .spectroscopy import McCumberFit, Spectroscopy
from .steady_state import ConvergenceError
from .sweep import Band, SweepWarning, band_over_glasses, sweep
from .temperature_tuning import (
    FiberMount,
    TuningCurve,
    tuning_curve,
)
from .thermal_limits import InstabilityMargin, core_heating_k, instability_margin
from .ytterbium import (
    YTTERBIUM_GLASSES,
    ytterbium,
    ytterbium_band,
)

__version__ = "0.1.0"

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
    "ConstrainedOptimum",
    "ConvergenceError",
    "Cooling",
    "Curve",
    "DbrLaser",
    "DbrResult",
    "Design",
    "DesignResult",
    "Estimate",
    "Fiber",
    "FiberMount",
    "FrequencyNoise",
    "Grating",
    "Identified",
    "InstabilityMargin",
    "Leaving",
    "Limits",
    "McCumberFit",
    "Mode",
    "Optimum",
    "PhysicalWarning",
    "Pulse",
    "PulsedResult",
    "Pump",
    "Reflector",
    "Relaxation",
    "Row",
    "Signal",
    "Spectroscopy",
    "Stage",
    "StokesWave",
    "Surroundings",
    "SweepWarning",
    "Transient",
    "TuningCurve",
    "amplifier_noise",
    "band_over_glasses",
    "beam_quality",
    "brillouin_stokes",
    "brillouin_threshold",
    "chain_gradient",
    "constrained_design",
    "core_heating_k",
    "design_from",
    "flat_seed_ase_w",
    "flicker_for_linewidth",
    "four_wave_mixing_share",
    "gradient",
    "identify",
    "instability_margin",
    "inverse_design",
    "largest_share",
    "load_design",
    "load_result",
    "load_spectroscopy",
    "noise_transfer",
    "nonlinear_phase_rad",
    "optimum_length_m",
    "packaged_designs",
    "pulsed",
    "pump_noise_transfer",
    "quantum_limit_w",
    "raman_stokes",
    "raman_threshold_w",
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
