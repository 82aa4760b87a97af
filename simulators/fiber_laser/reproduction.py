"""The published figures of the 1018 nm laser next to the simulated ones.

The published figures are those in the abstract of arXiv 2407.19641; no other data of the paper are
known here. Each row states whether our figure is *predicted* from the reference design,
*calibrated* (a named number was chosen to match it) or *assumed*.
"""

import warnings
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from .amplifier import PhysicalWarning, quantum_limit_w
from .beam_quality import largest_share
from .chain import Chain, ChainResult
from .design import Design, DesignResult
from .fiber import SINGLE_MODE_V
from .linewidth import (
    amplifier_noise,
    flicker_for_linewidth,
)
from .quantities import Array
from .sweep import Band, band_over_glasses
from .temperature_tuning import (
    FiberMount,
    largest_mismatch_per_k,
    tuning_curve,
)
from .thermal_limits import instability_margin

POWER_W, SLOPE, SUPPRESSION_DB = 120.0, 0.773, 60.0
TUNING_NM, TEMPERATURES_C = 1.5, (1.0, 95.0)
SEED_LINEWIDTH_HZ, OUTPUT_LINEWIDTH_HZ, BEAM_QUALITY = 3250.0, 10300.0, 1.3
_PUMP_SHARES = (0.6, 0.7, 0.8, 0.9, 1.0)
_BARE_THERMO_OPTIC = (6.1e-6, 8.6e-6)

Kind = Literal["predicted", "calibrated", "assumed"]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        figure: Name of the figure.
        published: The published value.
        ours: The simulated value.
        kind: Predicted, calibrated or assumed.
        given: The assumptions; for a calibrated figure the number that was chosen.
    """

    figure: str
    published: str
    ours: str
    kind: Kind
    given: str


def reproduce(design: Design) -> list[Row]:
    """Return the table for a design with a DBR seed laser.

    Raises:
        ValueError: The design has no DBR seed laser.
    """
    if design.seed_laser is None:
        raise ValueError(
            f"design {design.name!r}: seed.laser is missing; temperature tuning requires it"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhysicalWarning)
        result = design.solve()
        return [
            *_power(design, result),
            *_tuning(design),
            *_linewidths(design, result),
            *_limits(result),
        ]


def slope_efficiency(chain: Chain, coupling: float = 1.0) -> tuple[Array, Array, float]:
    """Return launched pump powers of the last stage in W, outputs in W, and the fitted slope.

    Args:
        chain: The chain with the last pumps at full power.
        coupling: Fraction of the launched pump that enters the fiber.
    """
    launched = sum(pump.power_w for pump in chain.stages[-1].pumps) * np.array(_PUMP_SHARES)
    guess, powers = None, []
    for share in _PUMP_SHARES:
        guess = chain.with_last_pumps_scaled(share * coupling).solve(guess=guess)
        powers.append(guess.output.signal_out_w)
    return launched, np.array(powers), float(np.polyfit(launched, powers, 1)[0])


def calibrated_coupling(chain: Chain, slope: float = SLOPE) -> float:
    """Return the pump coupling that gives a slope; above 1 the slope is not possible."""
    coupling = 1.0
    for _ in range(6):
        coupling *= slope / slope_efficiency(chain, coupling)[2]
    return coupling


def _power(design: Design, result: DesignResult) -> list[Row]:
    chain = design.seeded_chain()
    resolution = design.surroundings.resolution_nm

    def figures(of: ChainResult) -> dict[str, float]:
        suppression_db = of.output.ase_suppression_db(resolution)
        return {"power_w": of.output.signal_out_w, "suppression_db": suppression_db}

    over_glasses = band_over_glasses(chain, figures)
    noiseless = band_over_glasses(replace(chain, seed_ase_w=None), figures)
    coupling = calibrated_coupling(chain)
    launched, output_w, slope = slope_efficiency(chain, coupling)
    straight = np.corrcoef(launched, output_w)[0, 1] ** 2
    free = slope_efficiency(chain)[2]
    pump, stage = chain.stages[-1].pumps[0], result.chain.output
    entering_w = stage.amplifier.signals[0].power_w
    bound = quantum_limit_w(entering_w, launched[-1], pump.wavelength_nm, stage.main_wavelength_nm)
    return [
        Row(
            "output power",
            f"> {POWER_W:g} W",
            f"{_band(over_glasses['power_w'], 'W', 0)} over five glasses; at most {bound:.0f} W "
            "by photon number",
            "assumed",
            f"geometry and {launched[-1]:.0f} W of pump of the reference design, no coupling loss",
        ),
        Row(
            "slope efficiency",
            f"{100 * SLOPE:.1f} %",
            f"{100 * slope:.1f} % and {output_w[-1]:.0f} W; {100 * free:.1f} % without that loss",
            "calibrated",
            f"fraction of the launched pump that enters the fiber: {coupling:.3f}",
        ),
        Row(
            "linearity of output over pump",
            "-",
            f"1 - R² = {1 - straight:.1g} from {launched[0]:.0f} to {launched[-1]:.0f} W",
            "predicted",
            "the reference design",
        ),
        Row(
            "ASE suppression",
            f"> {SUPPRESSION_DB:g} dB",
            f"{_band(over_glasses['suppression_db'], 'dB', 1)} over five glasses in "
            f"{resolution:g} nm; {_band(noiseless['suppression_db'], 'dB', 1)} with a noiseless "
            "seed",
            "predicted",
            "the reference design, its filters, and the suppression of its seed",
        ),
    ]


def _tuning(design: Design) -> list[Row]:
    assert design.seed_laser is not None
    cavity = design.seed_laser.cavity
    temperature = np.linspace(*TEMPERATURES_C, 48)
    span = TEMPERATURES_C[1] - TEMPERATURES_C[0]
    bare = [
        tuning_curve(cavity, temperature, FiberMount(thermo_optic_per_k=per_k)).range_nm
        for per_k in _BARE_THERMO_OPTIC
    ]
    needed_per_k = TUNING_NM / span / cavity.front.bragg_wavelength_nm
    plain = FiberMount(quadratic_per_k2=design.seed_mount.quadratic_per_k2)
    expansion = plain.expansion_per_k + (needed_per_k - plain.per_k) / (1 - plain.strain_optic)
    mount = replace(plain, mount_expansion_per_k=expansion, strain_transfer=1.0)
    curve = tuning_curve(cavity, temperature, mount)
    mismatch = largest_mismatch_per_k(cavity, span) * cavity.front.bragg_wavelength_nm * 1e3
    return [
        Row(
            "tuning range over 1-95 °C",
            f"> {TUNING_NM:g} nm",
            f"{curve.range_nm:.2f} nm; bare silica: {bare[0]:.2f}-{bare[1]:.2f} nm (predicted)",
            "calibrated",
            f"expansion of a mount bonded to the seed: {expansion * 1e6:.1f} ppm/K",
        ),
        Row(
            "linearity of tuning",
            "extremely high",
            f"1 - R² = {1 - curve.r_squared:.1g}",
            "predicted",
            f"quadratic coefficient of the mount, {plain.quadratic_per_k2:g} per K²",
        ),
        Row(
            "mode hops",
            "none",
            f"{curve.hops.size} on one mount; none if the drifts of gratings and cavity differ by "
            f"less than {mismatch:.2f} pm/K",
            "predicted",
            "the cavity of the reference design at a uniform temperature",
        ),
    ]


def _linewidths(design: Design, result: DesignResult) -> list[Row]:
    observation = design.surroundings.observation_s
    assert result.seed is not None
    quantum = result.seed.quantum_linewidth_hz
    seed = flicker_for_linewidth(SEED_LINEWIDTH_HZ, observation, quantum / np.pi)
    output = flicker_for_linewidth(OUTPUT_LINEWIDTH_HZ, observation, quantum / np.pi)
    stage = result.chain.stages[0]
    entering = stage.amplifier.signals[0]
    phase = float(
        amplifier_noise(entering.wavelength_nm, entering.power_w, 10 ** (stage.gain_db / 10), 1.5)
    )
    at_hz = 1e4
    return [
        Row(
            "seed linewidth",
            f"{SEED_LINEWIDTH_HZ / 1e3:g} kHz",
            f"{seed.linewidth_hz(observation) / 1e3:.2f} kHz; quantum limit {quantum:.2g} Hz "
            "(predicted)",
            "calibrated",
            f"1/f noise h1 = {seed.flicker_hz2:.3g} Hz² at {observation * 1e3:g} ms",
        ),
        Row(
            "output linewidth",
            f"{OUTPUT_LINEWIDTH_HZ / 1e3:g} kHz",
            f"{output.linewidth_hz(observation) / 1e3:.2f} kHz; ASE adds {at_hz**2 * phase:.1g} "
            "Hz²/Hz at 10 kHz (predicted), which is negligible",
            "calibrated",
            f"further h1 = {output.flicker_hz2 - seed.flicker_hz2:.3g} Hz² from the amplifiers",
        ),
    ]


def _limits(result: DesignResult) -> list[Row]:
    output, threshold = result.chain.output, result.brillouin()
    fiber, signal = output.amplifier.fiber, output.amplifier.signals[0]
    quality, given = "the core guides a single mode", "core and numerical aperture"
    if float(fiber.v_number(signal.wavelength_nm)) > SINGLE_MODE_V:
        share = largest_share(fiber, signal.wavelength_nm, BEAM_QUALITY)
        quality = f"met with less than {100 * share:.0f} % in LP11"
        given = "the launched modes"
    margin = instability_margin(output)
    return [
        Row(
            "beam quality M²",
            f"< {BEAM_QUALITY:g}",
            quality,
            "assumed",
            given,
        ),
        Row(
            "Brillouin threshold",
            "above the output",
            f"{threshold.low_w:.0f}-{threshold.high_w:.0f} W",
            "predicted",
            "Brillouin gain 2-5e-11 m/W, the reference design and its delivery fiber",
        ),
        Row(
            "heat",
            "-",
            f"{output.heat_w:.1f} W, {margin.average_w_per_m:.1f} W/m on average, "
            f"{margin.peak_w_per_m:.1f} W/m at most; mode instability begins near 30 W/m",
            "predicted",
            "the reference design",
        ),
    ]


def _band(band: Band, unit: str, digits: int) -> str:
    return f"{band.low:.{digits}f}-{band.high:.{digits}f} {unit}"
