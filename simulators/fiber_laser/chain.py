"""A chain of amplifiers: each stage amplifies the signal and the ASE of the stage before."""

import warnings
from dataclasses import dataclass, field, replace

import numpy as np

from .amplifier import Amplifier, PhysicalWarning
from .amplifier_result import AmplifierResult
from .fiber import Fiber
from .light import AseBand, Pump, Reflector, Signal
from .linewidth import FrequencyNoise
from .quantities import Array, require_positive, require_within
from .self_heating import Cooling
from .spectroscopy import Spectroscopy
from .ytterbium import ytterbium


@dataclass(frozen=True)
class BandpassFilter:
    """A filter between two stages: full transmission within its width, a loss outside.

    Args:
        centre_nm: Centre of the passband in nm.
        width_nm: Full width in nm.
        rejection_db: Loss outside the passband in dB.
    """

    centre_nm: float
    width_nm: float
    rejection_db: float = 30.0

    def __post_init__(self) -> None:
        require_positive("centre_nm", self.centre_nm, "nm")
        require_positive("width_nm", self.width_nm, "nm")
        require_within("rejection_db", self.rejection_db, "dB", 0.0, 200.0)

    def transmission(self, from_nm: Array, to_nm: Array) -> Array:
        """Return the transmission of light with a flat spectrum in each band."""
        low, high = self.centre_nm - self.width_nm / 2, self.centre_nm + self.width_nm / 2
        within = np.clip(np.minimum(to_nm, high) - np.maximum(from_nm, low), 0, None)
        share = within / (to_nm - from_nm)
        return share + (1 - share) * 10 ** (-self.rejection_db / 10)


@dataclass(frozen=True)
class Stage:
    """One amplifier of a chain, with the components at its input.

    Args:
        name: Name of the stage in results.
        fiber: The doped fiber.
        pumps: Pumps of the stage.
        input_loss_db: Loss of signal and ASE between the previous stage and this one (isolator,
            splices, tap) in dB.
        input_filter: Filter at the input.
        added_noise: Frequency noise that the stage adds (pump noise, vibration); a calibrated
            number. The noise by spontaneous emission is negligible.
        reflectors: Mirrors at the ends of the fiber. With two of them the first stage is an
            oscillator, whose strongest laser line is the signal of the next stage.
        delivery_m: Length of a passive fiber of the same core after the stage in m, which counts
            for Brillouin and Raman scattering.
        cooling: Cooling by which the heat sets the temperature along the fiber; None: one
            temperature.
    """

    name: str
    fiber: Fiber
    pumps: tuple[Pump, ...]
    input_loss_db: float = 0.0
    input_filter: BandpassFilter | None = None
    added_noise: FrequencyNoise = field(default_factory=FrequencyNoise)
    reflectors: tuple[Reflector, ...] = ()
    delivery_m: float = 0.0
    cooling: Cooling | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "pumps", tuple(self.pumps))
        object.__setattr__(self, "reflectors", tuple(self.reflectors))
        require_within("input_loss_db", self.input_loss_db, "dB", 0.0, 100.0)
        require_within("delivery_m", self.delivery_m, "m", 0.0)


@dataclass(frozen=True, eq=False)
class ChainResult:
    """The steady states of a chain's stages.

    Args:
        names: Names of the stages.
        stages: Results of the stages.
        noise: Frequency noise of the output.
    """

    names: tuple[str, ...]
    stages: tuple[AmplifierResult, ...]
    noise: FrequencyNoise

    @property
    def output(self) -> AmplifierResult:
        """Result of the last stage."""
        return self.stages[-1]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings of all stages, each with the name of the stage."""
        pairs = zip(self.names, self.stages, strict=True)
        return tuple(f"{name}: {text}" for name, stage in pairs for text in stage.warnings)


@dataclass(frozen=True)
class Chain:
    """Amplifiers in series with isolators between them.

    The signal and the forward ASE of a stage enter the next stage after the losses and filters
    between them. No light passes backward through an isolator. All stages have the same bins.

    Args:
        seed: Signal at the input of the first stage, before its input loss; None if the first
            stage is an oscillator or a source of ASE.
        stages: The stages in order.
        ase: Bins of spontaneous emission.
        spectroscopy: Spectroscopy of all stages.
        seed_ase_w: ASE power per bin of the seed in W, (bins,).
        seed_noise: Frequency noise of the seed.

    Raises:
        ValueError: There is no stage, or two stages have the same name.
    """

    seed: Signal | None
    stages: tuple[Stage, ...]
    ase: AseBand = field(default_factory=AseBand)
    spectroscopy: Spectroscopy = field(default_factory=ytterbium)
    seed_ase_w: Array | None = None
    seed_noise: FrequencyNoise = field(default_factory=FrequencyNoise)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages))
        if not self.stages:
            raise ValueError("stages = (): a chain needs at least one Stage")
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ValueError(f"stages: expected different names, got {', '.join(names)}")
        if self.seed is not None and self.seed.direction != "forward":
            raise ValueError("seed.direction = 'backward': allowed is 'forward'")

    def solve(self, grid_tolerance: float = 1e-4, guess: ChainResult | None = None) -> ChainResult:
        """Compute the steady state of each stage, from the first to the last.

        Args:
            grid_tolerance: As in :meth:`Amplifier.solve`.
            guess: Result of a similar chain as the initial guess.

        Raises:
            ConvergenceError: A stage has no steady state; the message names the stage.

        Warns:
            PhysicalWarning: One for each of the result's ``warnings``.
        """
        signal = self.seed
        ase_w = np.zeros(self.ase.bins) if self.seed_ase_w is None else self.seed_ase_w
        results: list[AmplifierResult] = []
        noise = self.seed_noise
        for place, stage in enumerate(self.stages):
            amplifier = self._amplifier(stage, signal, ase_w)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", PhysicalWarning)
                    result = amplifier.solve(grid_tolerance, guess.stages[place] if guess else None)
            except RuntimeError as error:
                raise type(error)(f"stage {stage.name!r}: {error}") from error
            results.append(result)
            noise = noise + stage.added_noise
            signal, ase_w = self._output(result)
        chain = ChainResult(tuple(stage.name for stage in self.stages), tuple(results), noise)
        for text in chain.warnings:
            warnings.warn(text, PhysicalWarning, stacklevel=2)
        return chain

    def with_last_pumps_scaled(self, factor: float) -> "Chain":
        """Return a copy in which the pump powers of the last stage are multiplied by a factor."""
        last = self.stages[-1]
        pumps = tuple(replace(pump, power_w=pump.power_w * factor) for pump in last.pumps)
        return replace(self, stages=(*self.stages[:-1], replace(last, pumps=pumps)))

    def _output(self, result: AmplifierResult) -> tuple[Signal | None, Array]:
        """Return the signal and the ASE per bin that leave a stage."""
        signals, bins = result.amplifier.signals, result.amplifier.ase_bins
        assert bins is not None
        ase_w = result.ase_out_w("forward")
        if signals:
            signal: Signal | None = replace(signals[0], power_w=result.signal_out_w)
        elif result.laser_bins.size:
            line = result.main_line - len(result.amplifier.pumps)
            signal = Signal(
                result.laser_wavelength_nm,
                float(ase_w[line]),
                linewidth_hz=min(float(bins.widths_hz[line]), 1e12),
            )
            ase_w = ase_w.copy()
            ase_w[line] = 0.0
        else:
            signal = None
        return signal, ase_w if bins.count == self.ase.bins else bins.merged(self.ase, ase_w)

    def _amplifier(self, stage: Stage, signal: Signal | None, ase_w: Array) -> Amplifier:
        passed = 10 ** (-stage.input_loss_db / 10)
        edges = self.ase.edges_nm
        signal_passed, ase_passed = passed, np.full(self.ase.bins, passed)
        if stage.input_filter is not None:
            point = np.array([signal.wavelength_nm if signal else stage.input_filter.centre_nm])
            line = stage.input_filter.transmission(point - 1e-6, point + 1e-6)
            signal_passed = passed * float(line[0])
            ase_passed = passed * stage.input_filter.transmission(edges[:-1], edges[1:])
        return Amplifier(
            stage.fiber,
            stage.pumps,
            (replace(signal, power_w=signal.power_w * signal_passed),) if signal else (),
            self.ase,
            stage.reflectors,
            spectroscopy=self.spectroscopy,
            ase_forward_in_w=ase_w * ase_passed,
            cooling=stage.cooling,
        )


def flat_seed_ase_w(
    signal_w: float, suppression_db: float, resolution_nm: float, ase: AseBand
) -> Array:
    """Return the ASE per bin in W of a seed with a flat background.

    Args:
        signal_w: Power of the seed in W.
        suppression_db: Ratio of signal to background in a spectrum of ``resolution_nm``, in dB.
        resolution_nm: Resolution in nm.
        ase: The bins.
    """
    require_positive("resolution_nm", resolution_nm, "nm")
    require_within("suppression_db", suppression_db, "dB", 0.0, 200.0)
    per_nm = signal_w * 10 ** (-suppression_db / 10) / resolution_nm
    return np.full(ase.bins, per_nm * ase.width_nm)
