"""A whole laser: seed, chain of amplifiers, and what is known of its surroundings."""

import warnings
from dataclasses import dataclass, field, replace

from .amplifier import PhysicalWarning
from .beam_quality import largest_share
from .chain import Chain, ChainResult
from .dbr_laser import DbrLaser, DbrResult
from .fiber import SINGLE_MODE_V
from .light import Signal
from .limits import (
    BRILLOUIN_GAIN_M_PER_W,
    BrillouinThreshold,
    brillouin_threshold,
    core_heating_k,
    instability_margin,
)
from .linewidth import FrequencyNoise
from .quantities import require_positive, require_within
from .temperature_tuning import FiberMount


@dataclass(frozen=True)
class Surroundings:
    """What a design is measured and cooled with.

    Args:
        resolution_nm: of the optical spectrum analyser that shows the ASE suppression.
        observation_s: for how long a linewidth is looked at.
        delivery_m: passive fiber of the same core behind the last stage.
        outer_diameter_um: of the last stage's glass.
        convection_w_per_m2_k: heat transfer at its surface in W/m²/K.
        beam_quality_limit: M² that the output should stay below.
    """

    resolution_nm: float = 0.02
    observation_s: float = 1e-3
    delivery_m: float = 0.5
    outer_diameter_um: float = 250.0
    convection_w_per_m2_k: float = 1000.0
    beam_quality_limit: float = 1.3

    def __post_init__(self) -> None:
        require_positive("resolution_nm", self.resolution_nm, "nm")
        require_positive("observation_s", self.observation_s, "s")
        require_within("delivery_m", self.delivery_m, "m", 0.0)
        require_positive("outer_diameter_um", self.outer_diameter_um, "µm")
        require_positive("convection_w_per_m2_k", self.convection_w_per_m2_k, "W/m²/K")
        require_within("beam_quality_limit", self.beam_quality_limit, "", 1.0)


@dataclass(frozen=True, eq=False)
class DesignResult:
    """A design in the steady state.

    Args:
        design: what was solved.
        chain: the amplifiers.
        seed: the seed laser; None where the seed is given as a signal.
    """

    design: "Design"
    chain: ChainResult
    seed: DbrResult | None

    def brillouin(
        self, gain_m_per_w: tuple[float, float] = BRILLOUIN_GAIN_M_PER_W
    ) -> BrillouinThreshold:
        """SBS threshold of the last stage with its delivery fiber."""
        return brillouin_threshold(
            self.chain.output, self.design.surroundings.delivery_m, gain_m_per_w
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """Of the stages, and where the output may exceed a limit."""
        threshold, power = self.brillouin(), self.chain.output.signal_out_w
        found = list(self.chain.warnings)
        if power > threshold.low_w:
            found.append(
                f"Brillouin scattering: {power:.0f} W is above {threshold.low_w:.0f} W, the "
                f"threshold at the largest gain assumed ({threshold.high_w:.0f} W at the smallest)"
            )
        margin = instability_margin(self.chain.output)
        if margin.margin < 1:
            found.append(
                f"mode instability: {margin.average_w_per_m:.0f} W/m of heat on average, and "
                "modes become unstable at some 30 W/m"
            )
        return tuple(found)

    def summary(self) -> dict[str, float]:
        """The figures of the laser, each with its unit in the name."""
        surroundings, output = self.design.surroundings, self.chain.output
        figures: dict[str, float] = {}
        if self.seed is not None:
            figures["seed_w"] = self.seed.output_w
            figures["seed_wavelength_nm"] = self.seed.mode.wavelength_nm
            figures["seed_quantum_linewidth_hz"] = self.seed.quantum_linewidth_hz
        for name, stage in zip(self.chain.names, self.chain.stages, strict=True):
            figures[f"{name}_out_w"] = stage.signal_out_w
        figures |= output.summary()
        figures["ase_suppression_db"] = output.ase_suppression_db(surroundings.resolution_nm)
        if self.chain.noise != FrequencyNoise():
            observation_s = surroundings.observation_s
            figures["linewidth_hz"] = self.chain.noise.linewidth_hz(observation_s)
        threshold = self.brillouin()
        figures["brillouin_threshold_low_w"] = threshold.low_w
        figures["brillouin_threshold_high_w"] = threshold.high_w
        heating = core_heating_k(
            output, surroundings.outer_diameter_um, surroundings.convection_w_per_m2_k
        )
        figures["hottest_core_k"] = float(heating.max())
        figures["instability_margin"] = instability_margin(output).margin
        fiber, wavelength = output.amplifier.fiber, self.design.chain.seed.wavelength_nm
        if float(fiber.v_number(wavelength)) > SINGLE_MODE_V:
            figures["largest_lp11_share"] = largest_share(
                fiber, wavelength, surroundings.beam_quality_limit
            )
        return figures


@dataclass(frozen=True)
class Design:
    """A laser to simulate.

    Args:
        name: what it is called.
        chain: the amplifiers; where there is a ``seed_laser``, its output is their seed.
        seed_laser: a DBR laser.
        seed_mount: how seed and gratings follow the temperature.
        surroundings: what it is measured and cooled with.
        note: what should be known of it.
    """

    name: str
    chain: Chain
    seed_laser: DbrLaser | None = None
    seed_mount: FiberMount = field(default_factory=FiberMount)
    surroundings: Surroundings = field(default_factory=Surroundings)
    note: str = ""

    def seeded_chain(self) -> Chain:
        """The chain behind its seed laser, whose background keeps its share of the power.

        Raises:
            ValueError: a seed laser below threshold.
        """
        if self.seed_laser is None:
            return self.chain
        seed, carried = lasing(self.seed_laser), self.chain.seed_ase_w
        if carried is not None:
            carried = carried * (seed.output_w / self.chain.seed.power_w)
        signal = Signal(seed.mode.wavelength_nm, seed.output_w)
        return replace(self.chain, seed=signal, seed_ase_w=carried)

    def solve(self, guess: DesignResult | None = None) -> DesignResult:
        """The steady state.

        Raises:
            ConvergenceError: naming the stage.
            ValueError: a seed laser below threshold.

        Warns:
            PhysicalWarning: as listed in the result's ``warnings``.
        """
        seed = self.seed_laser.steady_state if self.seed_laser is not None else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PhysicalWarning)
            chain = self.seeded_chain().solve(guess=guess.chain if guess else None)
        result = DesignResult(self, chain, seed)
        for text in result.warnings:
            warnings.warn(text, PhysicalWarning, stacklevel=2)
        return result


def lasing(laser: DbrLaser) -> DbrResult:
    """The steady state of a seed laser.

    Raises:
        ValueError: it is below threshold.
    """
    solved = laser.steady_state
    if solved.output_w <= 0:
        raise ValueError(
            f"seed.laser is below threshold: it needs a mean excitation of "
            f"{solved.threshold_excitation:.3f} and reaches {solved.mean_excitation:.3f}; "
            "pump more, dope more, or reflect more"
        )
    return solved
