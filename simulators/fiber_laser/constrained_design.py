"""Design under limits: maximise the output within thresholds, by exact gradients from many starts.

The limits are those of the last stage. Each is a ratio to its allowed value, at most 1. Its
gradient is the adjoint gradient of the steady state plus the explicit dependence on the inputs.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize  # type: ignore[import-untyped]

from .amplifier import Amplifier, PhysicalWarning
from .amplifier_result import mean_fluorescence_photon_j
from .beam_quality import beam_quality
from .chain import Chain, ChainResult
from .fiber import SINGLE_MODE_V
from .gradients import Leaving, leaving_of
from .nonlinear_limits import BRILLOUIN_BANDWIDTH_HZ, RAMAN_GAIN_M
from .optimize import chain_gradient
from .parameter_paths import value_at, with_value
from .quantities import Array, require_positive, require_within
from .steady_state import ConvergenceError
from .thermal_limits import INSTABILITY_HEAT_W_PER_M

_SMITH_BRILLOUIN, _SMITH_RAMAN = 21.0, 16.0
_EXPLICIT_STEP = 1e-6
_FEASIBLE = 1 + 1e-4
_PEAK_POWER = 16  # exponent of the norm that approximates the strongest bin
_ITERATIONS = 60
Ratio = Callable[[Leaving, Amplifier], float]


@dataclass(frozen=True)
class Limits:
    """Limits of the last stage of a design. None leaves a limit out.

    Args:
        brillouin_gain_m_per_w: Gain in m/W of Smith's Brillouin threshold.
        delivery_m: Length of the delivery fiber in m.
        raman: Whether the output stays below Smith's Raman threshold.
        heat_w_per_m: Largest average heat in W/m.
        ase_suppression_db: Smallest ASE suppression in dB.
        resolution_nm: Resolution of the suppression in nm.
        beam_quality: Largest M².
        lp11_share: Fraction of the power launched into LP11, if the core guides it.
    """

    brillouin_gain_m_per_w: float | None = 5e-11
    delivery_m: float = 0.0
    raman: bool = True
    heat_w_per_m: float | None = INSTABILITY_HEAT_W_PER_M
    ase_suppression_db: float | None = None
    resolution_nm: float = 0.02
    beam_quality: float | None = None
    lp11_share: float = 0.05

    def __post_init__(self) -> None:
        if self.brillouin_gain_m_per_w is not None:
            require_positive("brillouin_gain_m_per_w", self.brillouin_gain_m_per_w, "m/W")
        require_within("delivery_m", self.delivery_m, "m", 0.0)
        if self.heat_w_per_m is not None:
            require_positive("heat_w_per_m", self.heat_w_per_m, "W/m")
        require_positive("resolution_nm", self.resolution_nm, "nm")
        require_within("lp11_share", self.lp11_share, "", 0.0, 1.0)
        if self.beam_quality is not None:
            require_within("beam_quality", self.beam_quality, "", 1.0)

    def ratios(self) -> dict[str, Ratio]:
        """Return the limits as functions that are at most 1 when they hold."""
        found: dict[str, Ratio] = {}
        if self.brillouin_gain_m_per_w is not None:
            found["brillouin"] = self._brillouin
        if self.raman:
            found["raman"] = self._raman
        if self.heat_w_per_m is not None:
            found["heat"] = self._heat
        if self.ase_suppression_db is not None:
            found["ase_suppression"] = self._ase_suppression
        if self.beam_quality is not None:
            found["beam_quality"] = self._beam_quality
        return found

    def _brillouin(self, leaving: Leaving, amplifier: Amplifier) -> float:
        gain = self.brillouin_gain_m_per_w or 0.0
        gain *= BRILLOUIN_BANDWIDTH_HZ
        gain /= BRILLOUIN_BANDWIDTH_HZ + amplifier.signals[0].linewidth_hz
        return self._intensity_length(leaving, amplifier) * gain / _SMITH_BRILLOUIN

    def _raman(self, leaving: Leaving, amplifier: Amplifier) -> float:
        gain = RAMAN_GAIN_M / (amplifier.signals[0].wavelength_nm * 1e-9)
        return self._intensity_length(leaving, amplifier) * gain / _SMITH_RAMAN

    def _intensity_length(self, leaving: Leaving, amplifier: Amplifier) -> float:
        """Return ∫ P/A dz over amplifier and delivery fiber in W/m."""
        area = float(amplifier.fiber.effective_area_m2(amplifier.signals[0].wavelength_nm))
        power_length = leaving.power_length_w_m[0] + self.delivery_m * leaving.forward_w[0]
        return float(power_length / area)

    def _heat(self, leaving: Leaving, amplifier: Amplifier) -> float:
        lines, length = amplifier.lines(), amplifier.fiber.length_m
        entering = lines.forward_in_per_s + lines.backward_in_per_s
        kept_w = float(entering @ amplifier.photon_energies_j)
        kept_w -= float(leaving.forward_w.sum() + leaving.backward_w.sum())
        escaped = lines.saturation_per_m_s - 2 * lines.spontaneous_per_m_s.sum()
        escaped_w = escaped * leaving.mean_excitation * mean_fluorescence_photon_j(amplifier)
        return float((kept_w / length - escaped_w) / (self.heat_w_per_m or np.inf))

    def _ase_suppression(self, leaving: Leaving, amplifier: Amplifier) -> float:
        """Return the strongest ASE over its allowed value; a high norm is the smooth maximum."""
        bins = amplifier.ase_bins
        if bins is None:
            raise ValueError("ase = None: a limit of the ASE suppression requires an AseBand")
        density = leaving.forward_w[-bins.count :] * self.resolution_nm / bins.widths_nm
        strongest = density.max() * float(
            np.sum((density / density.max()) ** _PEAK_POWER) ** (1 / _PEAK_POWER)
        )
        return float(
            strongest / leaving.forward_w[0] * 10 ** ((self.ase_suppression_db or 0.0) / 10)
        )

    def _beam_quality(self, leaving: Leaving, amplifier: Amplifier) -> float:
        del leaving
        fiber, wavelength = amplifier.fiber, amplifier.signals[0].wavelength_nm
        content = {"LP01": 1.0}
        if float(fiber.v_number(wavelength)) > SINGLE_MODE_V:
            content = {"LP01": 1 - self.lp11_share, "LP11": self.lp11_share}
        return beam_quality(fiber, wavelength, content) / (self.beam_quality or np.inf)


@dataclass(frozen=True, eq=False)
class ConstrainedOptimum:
    """The best design found under limits.

    Args:
        chain: The chain.
        result: Its steady state.
        values: Path of each varied input -> value.
        output_w: Output power in W.
        ratios: Limit -> ratio to the allowed value.
        is_feasible: Whether all limits hold. If not, no start found a design within the bounds that
            meets the limits, and this one violates them least.
        feasible_starts: Number of starts that ended at a feasible design.
        starts: Number of starts.
    """

    chain: Chain
    result: ChainResult
    values: dict[str, float]
    output_w: float
    ratios: dict[str, float]
    is_feasible: bool
    feasible_starts: int
    starts: int


def constrained_design(
    chain: Chain,
    bounds: Mapping[str, tuple[float, float]],
    limits: Limits | None = None,
    objective: str = "power",
    starts: int = 4,
    seed: int = 0,
) -> ConstrainedOptimum:
    """Maximise output power or efficiency of a chain under limits, by SLSQP from several starts.

    Args:
        chain: The first start; others are random within the bounds.
        bounds: Path of an input, as in :func:`chain_gradient` -> smallest and largest value.
        limits: Limits of the last stage; None: the defaults.
        objective: ``power``, or ``efficiency`` for output over launched pump of the last stage.
        starts: Number of starts.
        seed: Seed of the random starts.

    Raises:
        ValueError: There is no input, a lower bound is not below the upper bound, or the objective
            is unknown.
        ConvergenceError: No start has a steady state.
    """
    if not bounds:
        raise ValueError("bounds = {}: at least one input is required")
    for path, (low, high) in bounds.items():
        if not low < high:
            raise ValueError(f"bounds of {path}: {low:g} must be below {high:g}")
    if objective not in ("power", "efficiency"):
        raise ValueError(f"objective = {objective!r}: allowed is 'power' or 'efficiency'")
    require_within("starts", starts, "", 1, 1000)
    problem = _Problem(chain, bounds, limits or Limits(), objective)
    points = np.random.default_rng(seed).uniform(size=(starts, len(bounds)))
    points[0] = problem.share_of(chain)
    found: list[tuple[float, float, Array]] = []
    failure: ConvergenceError | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhysicalWarning)
        for point in points:
            try:
                found.append(problem.maximised(point))
            except ConvergenceError as error:
                failure = error
        if not found:
            raise failure or ConvergenceError("no start has a steady state")
        feasible = [one for one in found if one[0] <= _FEASIBLE]
        # The largest objective of the feasible designs, or the smallest violation.
        best = max(feasible, key=lambda one: one[1]) if feasible else min(found, key=lambda o: o[0])
        return problem.optimum(best[2], bool(feasible), len(feasible), len(points))


class _Problem:
    """Objective, limits and their gradients over shares of the bounds, with the last solution."""

    def __init__(
        self,
        chain: Chain,
        bounds: Mapping[str, tuple[float, float]],
        limits: Limits,
        objective: str,
    ) -> None:
        self.chain, self.paths, self.objective = chain, tuple(bounds), objective
        self.low = np.array([bounds[path][0] for path in self.paths])
        self.span = np.array([bounds[path][1] for path in self.paths]) - self.low
        self.ratios = limits.ratios()
        self.solved: dict[bytes, ChainResult] = {}
        self.guess: ChainResult | None = None
        self.scale = 1.0

    def share_of(self, chain: Chain) -> Array:
        values = np.array([float(value_at(chain, path)) for path in self.paths])
        return np.clip((values - self.low) / self.span, 0.0, 1.0)

    def chain_at(self, share: Array) -> Chain:
        changed = self.chain
        for path, value in zip(self.paths, self.low + self.span * share, strict=True):
            changed = with_value(changed, path, float(value))
        return changed

    def result_at(self, share: Array) -> ChainResult:
        key = np.clip(share, 0.0, 1.0).tobytes()
        if key not in self.solved:
            self.solved = {key: self.chain_at(np.frombuffer(key)).solve(guess=self.guess)}
            self.guess = self.solved[key]
        return self.solved[key]

    def maximised(self, start: Array) -> tuple[float, float, Array]:
        """Return the largest ratio, the objective and the shares of the best design of a start."""
        self.guess = None
        self.scale = max(abs(self._value(start, self._goal)), 1e-12)
        names = list(self.ratios)
        limits = {
            "type": "ineq",
            "fun": lambda share: 1 - self._values(share),
            "jac": lambda share: -np.array([self._slopes(share, self.ratios[n]) for n in names]),
        }
        found = minimize(
            lambda share: -self._value(share, self._goal) / self.scale,
            start,
            jac=lambda share: -self._slopes(share, self._goal) / self.scale,
            method="SLSQP",
            bounds=[(0.0, 1.0)] * len(start),
            constraints=[limits] if names else [],
            options={"maxiter": _ITERATIONS, "ftol": 1e-7},
        )
        share = np.clip(found.x, 0.0, 1.0)
        worst = float(self._values(share).max()) if names else 0.0
        return worst, self._value(share, self._goal), share

    def optimum(self, share: Array, feasible: bool, count: int, starts: int) -> ConstrainedOptimum:
        result = self.result_at(share)
        values = (self.low + self.span * share).tolist()
        return ConstrainedOptimum(
            chain=self.chain_at(share),
            result=result,
            values=dict(zip(self.paths, values, strict=True)),
            output_w=result.output.signal_out_w,
            ratios={name: self._value(share, ratio) for name, ratio in self.ratios.items()},
            is_feasible=feasible,
            feasible_starts=count,
            starts=starts,
        )

    def _goal(self, leaving: Leaving, amplifier: Amplifier) -> float:
        power = float(leaving.forward_w[0])
        if self.objective == "power":
            return power
        return power / max(sum(pump.power_w for pump in amplifier.pumps), 1e-12)

    def _value(self, share: Array, function: Ratio) -> float:
        result = self.result_at(share).output
        return function(leaving_of(result), result.amplifier)

    def _values(self, share: Array) -> Array:
        return np.array([self._value(share, ratio) for ratio in self.ratios.values()])

    def _slopes(self, share: Array, function: Ratio) -> Array:
        """Return the derivatives of a function of light and amplifier by the shares."""
        result = self.result_at(share)
        last, place = result.output, len(result.stages) - 1
        leaving, amplifier = leaving_of(last), last.amplifier
        by_light = chain_gradient(result, self.paths, lambda light: function(light, amplifier))
        slopes = np.array([by_light[path] for path in self.paths])
        prefix = f"stages[{place}]."
        for index, path in enumerate(self.paths):
            if path.startswith(prefix):
                inner = path.removeprefix(prefix)
                value = float(value_at(amplifier, inner))
                step = _EXPLICIT_STEP * max(abs(value), 1e-12)
                above, below = (with_value(amplifier, inner, value + s) for s in (step, -step))
                change = function(leaving, above) - function(leaving, below)
                slopes[index] += change / (2 * step)
        return slopes * self.span
