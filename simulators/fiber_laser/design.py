"""A complete laser: seed, chain of amplifiers, measurement and cooling."""

import warnings
from dataclasses import dataclass, field, replace

import numpy as np

from .amplifier import PhysicalWarning
from .amplifier_result import AmplifierResult
from .beam_quality import largest_share
from .chain import Chain, ChainResult
from .dbr_laser import DbrLaser, DbrResult
from .fiber import SINGLE_MODE_V
from .light import Signal
from .linewidth import FrequencyNoise
from .nonlinear_limits import (
    BRILLOUIN_GAIN_M_PER_W,
    BrillouinThreshold,
    brillouin_stokes,
    brillouin_threshold,
    nonlinear_phase_rad,
    raman_threshold_w,
)
from .quantities import Array, require_positive, require_within
from .temperature_tuning import FiberMount
from .thermal_limits import core_heating_k, instability_margin

_FAR_BELOW = 0.3  # of the threshold formula, below which no Stokes wave is integrated


@dataclass(frozen=True)
class Surroundings:
    """Measurement and cooling of a design.

    Args:
        resolution_nm: Resolution of the optical spectrum analyser for the ASE suppression in nm.
        observation_s: Observation time of the linewidth in s.
        delivery_m: Length of a passive fiber of the same core after the last stage in m, added to
            the ``delivery_m`` of that stage.
        outer_diameter_um: Diameter of the glass of the last stage in µm. Other stages have their
            cladding diameter, or 125 µm.
        convection_w_per_m2_k: Heat transfer coefficient at the surface in W/m²/K.
        beam_quality_limit: Largest allowed M².
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
        design: The design that was solved.
        chain: Result of the amplifiers.
        seed: Result of the seed laser; None if the seed is a signal or an oscillator stage.
    """

    design: "Design"
    chain: ChainResult
    seed: DbrResult | None

    def brillouin(
        self, gain_m_per_w: tuple[float, float] = BRILLOUIN_GAIN_M_PER_W
    ) -> BrillouinThreshold:
        """Return the SBS threshold of the last stage with its delivery fiber, by its formula."""
        return brillouin_threshold(self.chain.output, self._delivery_m(-1), gain_m_per_w)

    def brillouin_stokes_threshold(
        self, place: int = -1, gain_m_per_w: tuple[float, float] = BRILLOUIN_GAIN_M_PER_W
    ) -> BrillouinThreshold:
        """Return the SBS threshold of a stage by integration of the Stokes wave.

        The wave has the gain of the ions and the detuning by the heat of the core.
        """
        stage = self.chain.stages[place]
        low, high = (
            brillouin_stokes(stage, gain, self._delivery_m(place), self.core_heating_k(place))
            for gain in reversed(gain_m_per_w)
        )
        power = stage.output_w
        return BrillouinThreshold(low.threshold_w(power), high.threshold_w(power))

    def core_heating_k(self, place: int = -1) -> Array:
        """Return the temperature of a stage's core above its surroundings in its cells, in K."""
        surroundings, stage = self.design.surroundings, self.chain.stages[place]
        if stage.heating_k is not None:
            return stage.heating_k
        fiber = stage.amplifier.fiber
        outer_um = surroundings.outer_diameter_um
        if stage is not self.chain.output:
            outer_um = fiber.cladding_diameter_um or 125.0
        outer_um = max(outer_um, fiber.core_diameter_um)
        return core_heating_k(stage, outer_um, surroundings.convection_w_per_m2_k)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings of the stages, and limits that a stage may exceed, with the stage's name."""
        found = list(self.chain.warnings)
        for place, (name, stage) in enumerate(
            zip(self.chain.names, self.chain.stages, strict=True)
        ):
            if _has_line(stage):
                found += [f"{name}: {text}" for text in self._limits_exceeded(place, stage)]
        return tuple(found)

    def summary(self) -> dict[str, float]:
        """Return the main figures of the laser; each name contains the unit."""
        surroundings, output = self.design.surroundings, self.chain.output
        figures: dict[str, float] = {}
        if self.seed is not None:
            figures["seed_w"] = self.seed.output_w
            figures["seed_wavelength_nm"] = self.seed.mode.wavelength_nm
            figures["seed_quantum_linewidth_hz"] = self.seed.quantum_linewidth_hz
        for name, stage in zip(self.chain.names, self.chain.stages, strict=True):
            figures[f"{name}_out_w"] = stage.output_w
        figures |= output.summary()
        if output.amplifier.signals:
            figures["ase_suppression_db"] = output.ase_suppression_db(surroundings.resolution_nm)
        if self.chain.noise != FrequencyNoise():
            observation_s = surroundings.observation_s
            figures["linewidth_hz"] = self.chain.noise.linewidth_hz(observation_s)
        figures["hottest_core_k"] = float(self.core_heating_k().max())
        figures["instability_margin"] = instability_margin(output).margin
        return figures | (self._figures_of_the_line(output) if _has_line(output) else {})

    def _figures_of_the_line(self, output: AmplifierResult) -> dict[str, float]:
        surroundings, delivery_m = self.design.surroundings, self._delivery_m(-1)
        threshold, stokes = self.brillouin(), self.brillouin_stokes_threshold()
        figures = {
            "brillouin_threshold_low_w": threshold.low_w,
            "brillouin_threshold_high_w": threshold.high_w,
            "brillouin_stokes_threshold_low_w": stokes.low_w,
            "brillouin_stokes_threshold_high_w": stokes.high_w,
            "raman_threshold_w": raman_threshold_w(output, delivery_m),
            "nonlinear_phase_rad": nonlinear_phase_rad(output, delivery_m),
        }
        fiber, wavelength = output.amplifier.fiber, output.main_wavelength_nm
        if float(fiber.v_number(wavelength)) > SINGLE_MODE_V:
            figures["largest_lp11_share"] = largest_share(
                fiber, wavelength, surroundings.beam_quality_limit
            )
        return figures

    def _limits_exceeded(self, place: int, stage: AmplifierResult) -> list[str]:
        found, power, delivery_m = [], stage.output_w, self._delivery_m(place)
        formula = brillouin_threshold(stage, delivery_m)
        if power > _FAR_BELOW * formula.low_w:
            stokes = self.brillouin_stokes_threshold(place)
            low, high = min(formula.low_w, stokes.low_w), min(formula.high_w, stokes.high_w)
            if power > low:
                found.append(
                    f"Brillouin scattering: {power:.3g} W is above {low:.3g} W, the threshold at "
                    f"the largest gain assumed ({high:.3g} W at the smallest)"
                )
        raman_w = raman_threshold_w(stage, delivery_m)
        if power > raman_w:
            found.append(f"Raman scattering: {power:.3g} W is above the threshold, {raman_w:.3g} W")
        fiber, margin = stage.amplifier.fiber, instability_margin(stage)
        guides_several = float(fiber.v_number(stage.main_wavelength_nm)) > SINGLE_MODE_V
        if guides_several and margin.margin < 1:
            found.append(
                f"mode instability: {margin.average_w_per_m:.0f} W/m of heat on average; modes "
                "become unstable near 30 W/m"
            )
        return found

    def _delivery_m(self, place: int) -> float:
        own = self.design.chain.stages[place].delivery_m
        is_last = self.chain.stages[place] is self.chain.output
        return own + (self.design.surroundings.delivery_m if is_last else 0.0)


@dataclass(frozen=True)
class Design:
    """A laser to simulate.

    Args:
        name: Name in results.
        chain: The amplifiers. With a ``seed_laser``, its output replaces their seed.
        seed_laser: A DBR laser.
        seed_mount: Mount of the seed laser, for temperature tuning.
        surroundings: Measurement and cooling.
        note: A remark for the reader of results.
    """

    name: str
    chain: Chain
    seed_laser: DbrLaser | None = None
    seed_mount: FiberMount = field(default_factory=FiberMount)
    surroundings: Surroundings = field(default_factory=Surroundings)
    note: str = ""

    def seeded_chain(self) -> Chain:
        """Return the chain with the output of its seed laser, at a constant ASE suppression.

        Raises:
            ValueError: The seed laser is below threshold.
        """
        if self.seed_laser is None:
            return self.chain
        seed, carried = lasing(self.seed_laser), self.chain.seed_ase_w
        before = self.chain.seed
        if carried is not None and before is not None:
            carried = carried * (seed.output_w / before.power_w)
        linewidth_hz = before.linewidth_hz if before is not None else 0.0
        signal = Signal(seed.mode.wavelength_nm, seed.output_w, linewidth_hz=linewidth_hz)
        return replace(self.chain, seed=signal, seed_ase_w=carried)

    def solve(self, guess: DesignResult | None = None) -> DesignResult:
        """Compute the steady state.

        Raises:
            ConvergenceError: A stage has no steady state; the message names the stage.
            ValueError: The seed laser is below threshold.

        Warns:
            PhysicalWarning: One for each of the result's ``warnings``.
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
    """Return the steady state of a seed laser.

    Raises:
        ValueError: The seed laser is below threshold.
    """
    solved = laser.steady_state
    if solved.output_w <= 0:
        raise ValueError(
            f"seed.laser is below threshold: it needs a mean excitation of "
            f"{solved.threshold_excitation:.3f} and reaches {solved.mean_excitation:.3f}; "
            "increase the pump, the doping or the reflectivity"
        )
    return solved


def _has_line(stage: AmplifierResult) -> bool:
    """Whether a stage has an output line: a signal, or a laser line of an oscillator."""
    return bool(stage.amplifier.signals) or bool(np.size(stage.laser_bins))
